"""What the compiler knows of a gradient changes no number.

It knows the gradient of a parameter that the loss does not use, or uses behind `stop_gradient`, and
reorders the products it is in.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit._core import norms

pytestmark = pytest.mark.optimized
PARAMS = {"unused": jnp.ones(4), "w": jnp.full((8, 8), 30.0)}


def loss(p: dict[str, jax.Array]) -> jax.Array:
    """Its gradient has norm 480."""
    return jnp.sum(p["w"] ** 2)


def steps(tx: Any, constant: float = 0.0) -> Any:
    """Two updates in a scan, of which a leaf's gradient is known before the run."""

    @jax.jit
    def run(p: Any, state: Any) -> Any:
        def body(state: Any, _: None) -> Any:
            g = jax.grad(loss)(p)
            g["unused"] = jnp.full_like(g["unused"], constant)
            return tx.update(g, state, p)[::-1]

        return jax.lax.scan(body, state, length=2)

    return run(PARAMS, tx.init(PARAMS))


def step(tx: Any, params: Any = PARAMS) -> Any:
    """One update, of the gradient of a loss that leaves a parameter out."""
    update = jax.jit(lambda p, state: tx.update(jax.grad(loss)(p), state, p))
    return update(params, tx.init(params))


def norm(u: Any) -> float:
    return float(np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(u))))


@pytest.mark.parametrize("tx", [gk.clip_by_global_norm(1.0), gk.clip_by_ema_norm()])
def test_clips_beside_an_unused_parameter(tx: Any) -> None:
    u, _ = step(tx)
    assert norm(u) == pytest.approx(1.0, rel=1e-5)


def test_norm_power_beside_an_unused_parameter() -> None:
    u, _ = step(gk.normalize_by_norm_power(2 / 3))
    assert norm(u) == pytest.approx(480 ** (1 / 3), rel=1e-5)


def test_a_constant_leaf_of_1e_30_is_normalized() -> None:
    _, u = steps(gk.normalize_by_block(), 1e-30)
    assert norm(jax.tree.map(lambda x: x[1], u)) == pytest.approx(2**0.5, rel=1e-5)


@pytest.mark.parametrize("name", ["scale_by_gradient_norm", "scale_by_novograd"])
def test_states_beside_an_unused_parameter(name: str) -> None:
    u, state = step(getattr(gk, name)())
    for x in jax.tree.leaves((u, state)):
        assert np.all(np.isfinite(x))


@pytest.mark.parametrize("constant", [0.0, 1e-30, 1e25])
def test_neurons_in_a_scan(constant: float) -> None:
    """The root mean square of all neurons is the constant, whether or not it is known."""
    tx, p = gk.scale_by_neuron_norm(decay=0.0, eps=0.0), jnp.ones((3, 2))

    def body(state: Any, _: None) -> Any:
        return tx.update(jnp.full_like(p, constant), state, p)[::-1]

    scan = jax.jit(lambda state: jax.lax.scan(body, state, length=2))
    for x in jax.tree.leaves(scan(tx.init(p))):
        np.testing.assert_allclose(x, np.full_like(x, constant), rtol=1e-6)


CONSTANTS = [0.0, 1e-30, 1.0, 1e25]


def unrolled(f: Callable[[Any], Any], xs: Any) -> Any:
    """`jax.lax.map` as a compiler may run it."""
    return jax.tree.map(lambda *ys: jnp.stack(ys), *[f(x) for x in xs])


@pytest.mark.parametrize("order", [jax.lax.map, unrolled])
def test_norms_of_constants(order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax.lax, "map", order)
    want = np.array(CONSTANTS, np.float32) * np.sqrt(np.float32(5))
    outside = [jnp.full(5, x) for x in CONSTANTS]
    for leaves in (lambda: [jnp.full(5, x) for x in CONSTANTS], lambda: outside):
        found = jax.jit(lambda leaves=leaves: norms.of_leaves(leaves()))()
        np.testing.assert_allclose(found, want, rtol=1e-6)
    found = jax.jit(lambda *leaves: norms.of_leaves(leaves))(*outside)
    np.testing.assert_allclose(found, want, rtol=1e-6)
