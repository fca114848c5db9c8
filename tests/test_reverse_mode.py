"""Derivatives through updates, where gradients are zero: finite, and those of the rule."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit._core import derivative, norms, numbers, tree

ZERO = {"a": jnp.zeros((3, 2)), "b": jnp.zeros(2)}
SOME = {"a": jnp.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]), "b": jnp.zeros(2)}


@pytest.mark.parametrize(
    "f",
    [
        lambda t: norms.of_leaves(t).sum(),
        norms.of_tree,
        lambda t: norms.of_vector(t["b"]),
        lambda t: norms.along(t["a"], (-2, -1)).sum(),
        lambda t: norms.finite_along((t["a"], 0))[0].sum(),
        lambda t: norms.clip_factor(norms.of_tree(t), 1.0),
        lambda t: numbers.inverse(norms.of_tree(t)),
        lambda t: tree.ema_rms(0.9, t, t)["a"].sum(),
        lambda t: derivative.root(t["a"]).sum(),
        lambda t: derivative.cube_root(t["a"]).sum(),
        lambda t: derivative.hypot(t["a"], t["a"]).sum(),
    ],
)
def test_what_methods_stand_on_has_derivative_zero_at_zero(f: Callable) -> None:
    for x in jax.tree.leaves(jax.jit(jax.grad(f))(ZERO)):
        np.testing.assert_array_equal(x, jnp.zeros_like(x))


def test_the_derivative_of_a_norm_is_its_direction() -> None:
    by_leaf = jax.grad(lambda t: norms.of_leaves(t).sum())(SOME)
    whole = jax.grad(norms.of_tree)(SOME)
    for found in (by_leaf, whole):
        np.testing.assert_allclose(found["a"], SOME["a"] / 5, rtol=1e-6)
        np.testing.assert_array_equal(found["b"], [0.0, 0.0])
    both = {"a": jnp.full((1,), 3.0), "b": jnp.full((1,), 4.0)}
    np.testing.assert_allclose(jax.grad(norms.of_tree)(both)["a"], [0.6], rtol=1e-6)
    np.testing.assert_allclose(
        jax.hessian(norms.of_tree)(both)["a"]["a"], [[0.128]], rtol=1e-5
    )


def test_the_derivative_of_adam_is_that_of_its_rule() -> None:
    tx, g = gk.scale_by_adam(b1=0.9, b2=0.99, eps=0.5), jnp.array([2.0, -1.0, 0.0])
    slope = jax.grad(lambda g: jnp.sum(jnp.asarray(tx.update(g, tx.init(g))[0])))(g)
    np.testing.assert_allclose(slope, 0.5 / (jnp.abs(g) + 0.5) ** 2, rtol=1e-5)
