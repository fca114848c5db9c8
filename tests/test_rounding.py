"""A chain and a recipe compute in float32 from the first stage to the last, and round once."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entry import ENTRIES

import gradkit as gk
from gradkit.catalogue import METHODS
from gradkit.testing import Subject

RECIPES = [m.name for m in METHODS if m.family == "recipe"]
PAIRS = [(jnp.float32, jnp.bfloat16), (jnp.bfloat16, jnp.float32)]
SHAPES = {"kernel": (6, 4), "bias": (4,), "scale": ()}


def draw(seed: int, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), dtype) for k, s in SHAPES.items()}


def cast(t: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype), t)


def run(tx: Any, grads: list[Any], params: Any) -> list[Any]:
    state, out = tx.init(params), []
    for g in grads:
        u, state = tx.update(g, state, params)
        out.append(u)
    return out


def equal(got: Any, want: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("of_params,of_grads", PAIRS)
def test_a_recipe_updates_in_the_dtype_of_parameters(
    name: str, of_params: Any, of_grads: Any
) -> None:
    entry = ENTRIES[name]
    s = Subject(entry.factory, {k: v for k, v in entry.shapes.items() if k != "wide"})
    p, g = cast(s.params, of_params), cast(s.params, of_grads)
    u, _ = jax.eval_shape(s.update, g, jax.eval_shape(s.tx.init, p), p)
    assert {x.dtype for x in jax.tree.leaves(u)} == {jnp.dtype(of_params)}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_rounds_nothing_in_between(name: str) -> None:
    """Of gradients in bfloat16 it does what it does of the same numbers in float32."""
    entry = ENTRIES[name]
    s = Subject(entry.factory, {k: v for k, v in entry.shapes.items() if k != "wide"})
    grads = [cast(s.grads(t), jnp.bfloat16) for t in range(2)]
    wide = [cast(g, jnp.float32) for g in grads]
    equal(run(s.tx, grads, s.params), run(s.tx, wide, s.params))


def three() -> list[Any]:
    return [gk.clip_by_global_norm(0.5), gk.scale_by_adam(), gk.step_by_learning_rate()]


@pytest.mark.parametrize("of_params", [jnp.float32, jnp.bfloat16, None])
def test_a_chain_rounds_once(of_params: Any) -> None:
    """Bit for bit what the chain in float32 is, rounded at its end; however it is nested."""
    grads = [draw(t, jnp.bfloat16) for t in range(3)]
    params = None if of_params is None else draw(9, of_params)
    exact = optax.with_extra_args_support(optax.chain(*three()))
    state, found = exact.init(cast(draw(9), jnp.float32)), []
    for g in grads:
        u, state = exact.update(
            cast(g, jnp.float32), state, params and cast(params, jnp.float32)
        )
        found.append(cast(u, of_params or jnp.bfloat16))
    clip, adam, step = three()
    for tx in (
        gk.chain(clip, adam, step),
        gk.chain(gk.chain(clip, adam), step),
        gk.chain(clip, gk.chain(gk.chain(adam), step)),
        gk.chain(optax.chain(clip, adam), step),
    ):
        state = tx.init(draw(9))
        for g, want in zip(grads, found):
            u, state = tx.update(g, state, params)
            equal(u, want)
            assert jax.tree.map(lambda x: x.dtype, u) == jax.tree.map(
                lambda x: x.dtype, want
            )


def test_alone_a_stage_returns_its_gradient_dtype() -> None:
    g, p = draw(0, jnp.bfloat16), draw(1)
    for tx in [*three(), gk.normalize_by_trust_ratio(), optax.chain(*three())]:
        (u,) = run(tx, [g], p)
        assert {x.dtype for x in jax.tree.leaves(u)} == {jnp.dtype(jnp.bfloat16)}


def test_muon_rounds_once() -> None:
    """Not at all where parameters are float32, else as its update in float32 rounds."""
    grads, params = [draw(t, jnp.bfloat16) for t in range(3)], draw(9, jnp.bfloat16)
    tx, wide = gk.muon(weight_decay=0.1), cast(params, jnp.float32)
    exact = run(tx, [cast(g, jnp.float32) for g in grads], wide)
    equal(run(tx, grads, wide), exact)
    equal(run(tx, grads, params), cast(exact, jnp.bfloat16))


def test_lion_decays_in_bfloat16_gradients() -> None:
    """4,000 steps to and fro, of which the decay is a thousandth and half a unit of bfloat16."""
    rate, decay, steps = 1e-4, 0.1, 4000
    start = jnp.linspace(0.01, 0.02, 5)
    tx = gk.lion(rate, weight_decay=decay)

    def step(carry: Any, sign: jax.Array) -> Any:
        p, state = carry
        u, state = tx.update(jnp.full(5, sign, jnp.bfloat16), state, p)
        return (optax.apply_updates(p, u), state), None

    signs = jnp.tile(jnp.array([1.0, -1.0], jnp.bfloat16), steps // 2)
    (end, _), _ = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), signs))(start)
    want = np.asarray(start, np.float64)
    for sign in np.tile([1.0, -1.0], steps // 2):
        want = want - rate * (sign + decay * want)
    moved = want - np.asarray(start, np.float64)
    np.testing.assert_allclose(end - start, moved, rtol=0.02)


@pytest.mark.parametrize("make", [optax.scale_by_adam, optax.adamw, optax.trace])
def test_stages_of_optax_keep_their_state_in_float32(make: Any) -> None:
    """So a chain of them can be carried through a scan, whatever the parameters are in."""
    stage = make(0.9) if make is optax.trace else make(*[1e-3] * (make is optax.adamw))
    tx, p = gk.chain(stage, optax.scale(-0.1)), jnp.ones(4, jnp.bfloat16)
    with jax.numpy_dtype_promotion("standard"):
        step = lambda state, g: tx.update(g, state, p)[::-1]
        state, us = jax.lax.scan(step, tx.init(p), jnp.ones((3, 4), jnp.bfloat16))
    assert us.dtype == jnp.bfloat16
    assert all(x.dtype in (jnp.float32, jnp.int32) for x in jax.tree.leaves(state))


def test_a_chain_within_another_wrapper_within_a_chain_rounds_nothing() -> None:
    p, g = jnp.ones(256, jnp.bfloat16), jax.random.normal(jax.random.key(0), (256,))
    parts = lambda: (gk.scale_by_adam(), gk.step_by_learning_rate(1e-3))
    within = optax.MultiSteps(gk.chain(*parts()), 1).gradient_transformation()
    scale = optax.scale(1 / 3)
    with jax.numpy_dtype_promotion("standard"):
        us = []
        for tx in (gk.chain(*parts(), scale), gk.chain(within, scale)):
            us.append(tx.update(g, tx.init(p), p)[0])
    np.testing.assert_array_equal(*us)
