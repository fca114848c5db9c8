"""A first gradient of zero, or that is not finite, leaves no trace in what comes after."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk

Update = Callable[..., tuple[Any, Any]]
G = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
ROOTS = [gk.precondition_by_shampoo, gk.precondition_by_one_sided_shampoo]
RECIPES = [*ROOTS, functools.partial(gk.shampoo, 1.0)]


def run(update: Update, state: Any, gs: list[Any]) -> list[tuple[Any, Any]]:
    """What an update makes of gradients, one after the other, and the states."""
    found, params = [], jax.tree.map(jnp.zeros_like, gs[0])
    for g in gs:
        u, state = update(g, state, params)
        found.append((u, state))
    return found


@pytest.mark.parametrize("factory", RECIPES)
def test_roots_wait_for_a_gradient(factory) -> None:
    """Not for the next time that roots are due: from there on updates have their own length."""
    tx = factory(every=5)
    update, start = jax.jit(tx.update), tx.init(G)
    for size in (1e3, 1e-3):
        for first in (0.0, jnp.nan):
            us = [u for u, _ in run(update, start, [first * G] * 2 + [size * G] * 4)]
            found = [float(jnp.linalg.norm(u)) for u in us]
            assert found[:2] == [0.0, 0.0]
            assert min(found[2:]) > 0.8 and max(found[2:]) < 4, found  # 2 at last


@pytest.mark.parametrize("factory", ROOTS)
def test_only_roots_of_zero_are_renewed_early(factory) -> None:
    """Neither those of the other matrices of a stack, nor those of other leaves."""
    tx = factory(every=5, batch_axes=(0,))
    update, both = jax.jit(tx.update), jnp.stack([G, -2 * G])
    g = {"a": both, "b": both}
    late = {"a": both.at[1].set(0), "b": both}
    more = [jax.tree.map(lambda x, c=c: c * x, g) for c in (1.0, 2.0, 3.0)]
    states = lambda first: [s for _, s in run(update, tx.init(g), [first] * 6 + more)]
    plain, waited = states(g)[5:], states(late)[5:]  # roots are taken at 1, 2, 4, 6, 11

    def roots_of(state: Any) -> list[Any]:
        """First those of matrices that are the same in both runs, then the others."""
        found = jax.tree.leaves(state.roots)
        same = [*(x[0] for x in found[::2]), *found[1::2]]
        return [*same, *(x[1] for x in found[::2])]

    ordinary, renewed = map(roots_of, plain), list(map(roots_of, waited))
    same = len(renewed[0]) - len(renewed[0]) // 3
    for old, new in zip(ordinary, renewed):
        jax.tree.map(np.testing.assert_array_equal, old[:same], new[:same])
    for root in renewed[0][same:]:
        np.testing.assert_array_equal(root, jnp.eye(len(root)))
    for state in renewed[2:]:
        jax.tree.map(np.testing.assert_array_equal, state, renewed[1])
    assert jnp.any(renewed[0][-1] != renewed[1][-1])


@pytest.mark.parametrize("first", [0.0, jnp.nan])
def test_novograd_starts_with_the_first_norm_of_a_leaf(first) -> None:
    tx, other = gk.scale_by_novograd(), jnp.array([3.0, 4.0])
    g = {"late": G, "early": other}
    gs = [{"late": first * G, "early": other}, g]
    (_, _), (u, state) = run(tx.update, tx.init(g), gs)
    np.testing.assert_allclose(jnp.linalg.norm(u["late"]), 1.0, rtol=1e-5)
    roots = [5.0, float(jnp.linalg.norm(G))]  # of early, and of late
    np.testing.assert_allclose(state.root, roots, rtol=1e-5)


def test_a_percentile_of_few_norms_is_no_indefinite_product() -> None:
    """No 0 * inf beside what is remembered, which the search for NaN would stop at."""
    tx: optax.GradientTransformation = gk.clip_by_percentile(50.0, history=4)
    with jax.debug_nans(True):
        found = run(tx.update, tx.init(G), [c * G for c in (0.0, 1.0, 3.0)])
    np.testing.assert_allclose(found[2][0], 2.0 * G, rtol=1e-6)
