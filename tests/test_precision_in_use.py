"""Parameters in bfloat16 in loops as people write them: updates are added in three ways.

`optax.apply_updates` adds in float32 and keeps the dtype of parameters. `p + u`, which is also what
`equinox.apply_updates` computes, makes a float32 parameter of a narrow one: rounding ends unseen.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk

METHODS = {
    "kahan": gk.round_by_kahan,
    "error_correction": gk.round_by_error_correction,
    "master": gk.round_by_master,
}
AROUND: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda last: last,
    "gradkit.chain": lambda last: gk.chain(gk.sgd(), last),
    "optax.chain": lambda last: optax.chain(optax.sgd(0.1), last),
    "accumulate": lambda last: gk.accumulate(gk.chain(gk.sgd(), last), every=1),
    "route": lambda last: gk.route({"w|b": gk.chain(gk.sgd(), last)}),
}


@pytest.fixture(autouse=True)
def as_users_have_it():
    """A narrow parameter and a float32 update are added in float32."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def narrow() -> dict[str, jax.Array]:
    """Parameters in two dtypes."""
    return {"b": jnp.ones(2), "w": jnp.ones(3, jnp.bfloat16)}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", METHODS)
def test_parameters_that_a_sum_has_widened_are_refused(name: str, around: str):
    """They would be updated in float32 from then on, in twice the memory, without a word."""
    tx, p = AROUND[around](METHODS[name]()), narrow()
    u, state = tx.update(p, tx.init(p), p)
    wider = eqx.apply_updates(p, u)
    assert wider["w"].dtype == jnp.float32
    with pytest.raises(TypeError) as caught:
        jax.eval_shape(tx.update, p, state, wider)
    said = "leaf w must have the dtype that it had in init, got float32 instead of less"
    assert said in str(caught.value) and "optax.apply_updates" in str(caught.value)
    tx.update(p, state, optax.apply_updates(p, u))


@pytest.mark.parametrize("name", METHODS)
def test_so_are_those_that_were_cast_down(name: str):
    tx, p = METHODS[name](), {"w": jnp.ones(3)}
    with pytest.raises(TypeError, match="got bfloat16 instead of at least float32"):
        tx.update(p, tx.init(p), {"w": jnp.ones(3, jnp.bfloat16)})


def test_another_error_of_dtypes_is_not_taken_for_one_of_the_state():
    """The cause is a gradient of whole numbers, though the state does not fit either."""
    tx, p = gk.adamw(), {"w": jnp.ones(3)}
    state = tx.init({"v": jnp.ones(3)})
    with pytest.raises(TypeError, match="leaf w must be a real floating array"):
        tx.update({"w": jnp.ones(3, int)}, state, p)


@pytest.mark.parametrize("name", [*METHODS, "stochastic"])
def test_an_equinox_model_in_bfloat16_keeps_its_dtype_and_moves(name: str):
    """The loop that docs/sharp_edges.md shows."""
    last = {**METHODS, "stochastic": gk.round_by_stochastic}[name]()
    tx, x = gk.chain(gk.adamw(1e-3, weight_decay=0.0), last), jnp.ones((8, 4))
    model = eqx.nn.MLP(4, 1, 16, 1, key=jax.random.key(0), dtype=jnp.bfloat16)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    first = params

    def loss(params: Any) -> jax.Array:
        out = jax.vmap(eqx.combine(params, static))(x).astype(jnp.float32)
        return jnp.mean((out - 3) ** 2)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    for _ in range(20):
        params, state = step(params, state)
    for p, q in zip(jax.tree.leaves(first), jax.tree.leaves(params)):
        assert q.dtype == jnp.bfloat16
        moved = np.abs(np.asarray(q, np.float32) - np.asarray(p, np.float32))
        assert moved.mean() < 0.025  # twenty steps of a thousandth, and rounding
    assert loss(params) < loss(first)
