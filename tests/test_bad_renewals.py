"""A gradient of zeros, or of no numbers, where a basis is to be renewed: none is made of it."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit import subspace

EVERY = {"rank": 1, "every": 5}
DIRECT: dict[
    str, Callable[..., Any]
] = {  # a good step moves as if there were no bad one
    "svd": functools.partial(gk.project_by_svd, optax.identity()),
    "range_finder": functools.partial(gk.project_by_range_finder, optax.identity()),
    "weight_norm": functools.partial(gk.project_by_weight_norm, optax.identity()),
}
AVERAGING: dict[str, Callable[..., Any]] = {  # a bad step counts in averages
    "fira of Adam": functools.partial(gk.project_by_fira, gk.scale_by_adam()),
    "galore": functools.partial(gk.galore, 1.0),
    "fira": functools.partial(gk.fira, 1.0),
    "snsm": functools.partial(gk.snsm, 1.0),
    "grass_walk": functools.partial(gk.grass_walk, 1.0),
    "lorp": functools.partial(gk.lorp, 1.0),
}
BAD = {"nan first": (0, jnp.nan), "zero first": (0, 0.0), "nan renewal": (5, jnp.nan)}
LONG = {"fira of Adam", "snsm", "grass_walk", "lorp"}  # left to make check-full
STEPS = 9


def one_row(seed: int, shape: tuple[int, ...] = (4, 6)) -> jax.Array:
    """A gradient in one row only, of which another basis sees nothing."""
    g = np.zeros(shape)
    g[..., 1, :] = np.random.default_rng(seed).uniform(1, 2, (*shape[:-2], shape[-1]))
    return jnp.asarray(g, jnp.float32)


@functools.cache
def runner(name: str) -> Callable[..., list[Any]]:
    """Of gradients the updates, by a method compiled once."""
    tx = optax.with_extra_args_support({**DIRECT, **AVERAGING}[name](**EVERY))
    step = jax.jit(tx.update)

    def run(gs: list[Any]) -> list[Any]:
        p = {k: 1 + jnp.cos(one_row(2)).at[0].add(i) for i, k in enumerate(gs[0])}
        state, us = tx.init(p), []
        for g in gs:
            u, state = step(g, state, p)
            us.append(u)
        return us

    return run


@functools.cache
def clean(name: str) -> Any:
    return runner(name)([{"a": one_row(0), "b": one_row(1)}] * STEPS)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in LONG))
        for name in [*DIRECT, *AVERAGING]
    ],
)
def test_a_basis_is_not_made_of_a_bad_gradient(name: str, bad: str) -> None:
    """Of one leaf, and of two: good updates are of the size of those of a clean run."""
    at, value = BAD[bad]
    good = {"a": one_row(0), "b": one_row(1)}
    for leaves in ("a", "ab"):
        broken = {**good, **{k: jnp.full((4, 6), value) for k in leaves}}
        us = runner(name)([broken if t == at else good for t in range(STEPS)])
        for t, (u, want) in enumerate(zip(us, clean(name))):
            for k in good:
                if name in DIRECT and not (t == at and k in leaves):
                    np.testing.assert_allclose(u[k], want[k], rtol=1e-4, atol=1e-5)
                elif t > at:
                    size, usual = jnp.linalg.norm(u[k]), jnp.linalg.norm(want[k])
                    assert usual / 2 < size < 2 * usual, (t, k, size, usual)


@pytest.mark.parametrize("name", ["svd", "randomized_svd", "grassmann_walk"])
@pytest.mark.parametrize("schedule", ["every_n", "staggered", "on_energy_drop"])
def test_each_matrix_of_a_leaf_waits_alone(name: str, schedule: str) -> None:
    """One begins late, and the others walk on; one never begins."""
    when = getattr(subspace, schedule)(0.0 if schedule == "on_energy_drop" else 2)
    basis = getattr(subspace, name)()
    tx = subspace.project(
        optax.identity(), 1, basis=basis, schedule=when, batch_axes=(0,)
    )
    g = one_row(0, (3, 4, 6)).at[2].set(0)
    state, step, seen = tx.init(g), jax.jit(tx.update), []
    for t in range(4):
        now = g.at[1].multiply(float(t > 0))
        u, state = step(now, state)
        seen.append(state.bases)
        assert jnp.ravel(state.found).tolist() == [True, t > 0, False]
        if name != "grassmann_walk":
            np.testing.assert_allclose(u, now, atol=1e-4)
    first = jnp.eye(4)[:, 1:2]
    np.testing.assert_allclose(seen[0][0], first, atol=1e-5)
    np.testing.assert_allclose(seen[1][1], first, atol=1e-5)
    assert jnp.all(seen[3][2] == seen[0][2])
    moved = [bool(jnp.any(abs(p - first) > 0.1)) for p in seen[3]]
    walks = name == "grassmann_walk" and schedule != "on_energy_drop"
    assert moved == [walks, walks, True]


def test_nothing_is_factorized_while_a_matrix_has_no_gradient() -> None:
    """A leaf that never has one costs nothing, but where all are renewed."""
    calls = []

    def renew(states: Any, gs: Any, key: Any) -> Any:
        jax.debug.callback(lambda: calls.append(1))
        return svd.renew(states, gs, key)

    svd = subspace.svd()
    counted = svd._replace(renew=renew)
    tx = subspace.project(
        optax.identity(), 1, basis=counted, schedule=subspace.every_n(5)
    )
    gs = [jnp.zeros((4, 6)), one_row(0)]
    step, state = jax.jit(tx.update), tx.init(gs)
    for _ in range(6):
        _, state = step(gs, state)
    jax.effects_barrier()
    assert len(calls) == 2


def test_power_iteration_keeps_its_basis() -> None:
    tx = gk.project_by_power_iteration(optax.identity(), rank=2, every=1)
    first: Any = tx.init(one_row(0))
    later: Any = tx.update(jnp.zeros((4, 6)), first)[1]
    assert jnp.all(later.bases == first.bases)


@pytest.mark.parametrize("make", [gk.project_by_fira, gk.project_by_random])
def test_growth_is_limited_after_a_bad_gradient(make: Callable[..., Any]) -> None:
    tx = make(optax.scale_by_sign(), rank=1, growth=1.5, scale=0.5)
    g = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    state, sizes = tx.init(g), []
    for x in (g, jnp.nan * g, 1e4 * jnp.cos(g)):
        u, state = jax.jit(tx.update)(x, state)
        sizes.append(float(jnp.linalg.norm(u)))
    assert 0 < sizes[2] < 2.5 * sizes[0]
