"""Limited growth: what a small gradient costs, as the docstrings say, and what a floor saves."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gradkit as gk

STEPS, RANK = 1000, 2


def length(tx: Any, scales: jax.Array) -> jax.Array:
    """The norms of updates for gradients of these scales."""
    noise = jax.random.normal(jax.random.key(0), (len(scales), 6, 8), jnp.float32)

    def step(state: Any, g: jax.Array) -> Any:
        u, state = tx.update(g, state)
        return state, jnp.linalg.norm(u)

    run = jax.jit(lambda gs: jax.lax.scan(step, tx.init(gs[0]), gs)[1])
    return run(noise * scales[:, None, None])


def stall(tx: Any, small: float, steps: int) -> int:
    """Updates until half of the usual norm, after `steps` gradients that are `small`."""
    before = jnp.ones(20, jnp.float32)
    scales = [before, jnp.full(steps, small, jnp.float32), jnp.ones(STEPS, jnp.float32)]
    norms = length(tx, jnp.concatenate(scales))
    usual = jnp.median(norms[10:20])
    return int(jnp.argmax(norms[20 + steps :] > usual / 2))


def fira(floor: float) -> Any:
    return gk.project_by_fira(gk.scale_by_adam(), rank=RANK, scale=0.0, floor=floor)


def apollo(floor: float) -> Any:
    return gk.project_by_random(gk.scale_by_adam(), rank=RANK, scale=1.0, floor=floor)


@pytest.mark.parametrize("make", [fira, apollo])
@pytest.mark.parametrize("small,steps", [(1e-3, 100), (1e-12, 1)])
def test_a_small_gradient_costs_hundreds_of_updates_but_for_a_floor(
    make: Any, small: float, steps: int
) -> None:
    assert stall(make(0.0), small, steps) > 300
    assert stall(make(0.1), small, steps) < 260


def test_the_norm_of_a_leaf_comes_back_at_once_up_to_the_floor() -> None:
    gs = [jnp.float32(1.0), jnp.float32(1e-6), jnp.float32(1.0)]
    for floor, last in ((0.0, 1.01e-6), (0.5, 0.5)):
        tx = gk.clip_by_norm_growth(floor=floor)
        state = tx.init(gs[0])
        for g in gs:
            u, state = tx.update(g, state)
        assert jnp.isclose(u, last, rtol=1e-5)
