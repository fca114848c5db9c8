"""Inverse roots, eigenbases and largest eigenvalues, beside exact linear algebra in float64."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradkit._core import numbers
from gradkit._core.matrix import kronecker, linalg, roots
from gradkit._transform.precondition.soap import power_step

EPS = float(jnp.finfo(jnp.float32).eps)


def positive(n: int, condition: float, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """A random positive matrix whose eigenvalues spread evenly, in decades, over `condition`."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    return (q * np.geomspace(scale, scale / condition, n)) @ q.T


def exact(a: np.ndarray, power: float, damping: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(np.asarray(a, np.float64))
    values = np.maximum(values, 0) + damping * np.mean(values)
    return (vectors * values**-power) @ vectors.T


def single(a: np.ndarray) -> jax.Array:
    return jnp.asarray(a, jnp.float32)


@pytest.mark.parametrize("n", [1, 7, 96])
@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("condition", [1e1, 1e3, 1e5])
def test_roots_are_as_exact_as_their_condition_allows(n, power, condition) -> None:
    """The error is at most a few roundings times the condition number."""
    a = single(positive(n, condition))
    got, want = roots.inverse_root(a, power, 0.0), exact(a, power, 0.0)
    error = np.linalg.norm(got - want, 2) / np.linalg.norm(want, 2)
    assert error <= 4 * EPS * condition, error / EPS


@pytest.mark.parametrize("power", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("damping", [1e-1, 1e-3])
def test_damping_conditions_what_has_no_full_rank(power, damping) -> None:
    x = np.random.default_rng(0).normal(size=(24, 3))
    a = single(x @ x.T)
    got, want = roots.inverse_root(a, power, damping), exact(a, power, damping)
    np.testing.assert_allclose(got, want, atol=1e-3 * np.abs(want).max())


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e10, 1e30])
def test_roots_scale_with_their_matrix(scale) -> None:
    a = single(positive(9, 1e2))
    got = roots.inverse_root(a * jnp.float32(scale), 0.25, 1e-6)
    want = roots.inverse_root(a, 0.25, 1e-6) * np.float32(scale**-0.25)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5 * scale**-0.25)


def test_roots_of_nothing_are_identities_and_of_one_direction_finite() -> None:
    for damping in (0.0, 1e-6):
        zero = roots.inverse_root(jnp.zeros((3, 4, 4)), 0.5, damping)
        np.testing.assert_array_equal(zero, np.broadcast_to(np.eye(4), (3, 4, 4)))
        one = roots.inverse_root(single(np.outer([1, 2], [1, 2])), 0.5, damping)
        assert np.linalg.norm(one, 2) <= EPS**-0.5
    assert roots.inverse_root(jnp.zeros((0, 0)), 0.5, 0.0).shape == (0, 0)


@pytest.mark.parametrize("n", [1, 5, 40])
def test_bases_are_orthonormal_and_in_order(n) -> None:
    a = positive(n, 1e3)
    q = np.asarray(roots.eigenbasis(single(a)), np.float64)
    np.testing.assert_allclose(q @ q.T, np.eye(n), atol=1e-5)
    np.testing.assert_allclose(
        q @ a @ q.T, np.diag(np.geomspace(1, 1e-3, n)), atol=1e-5
    )


def test_power_steps_find_the_eigenvectors() -> None:
    """From a random basis, each step closer by the ratio of neighbouring eigenvalues."""
    a = positive(6, 1e5)
    start = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    grams, bases = (kronecker.Sides(single(x), kronecker.NONE) for x in (a, start))
    for _ in range(12):
        bases, order = power_step(grams, bases)
        assert kronecker.is_none(order.cols)
    q = np.asarray(bases.rows, np.float64)
    np.testing.assert_allclose(q @ q.T, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(
        q @ a @ q.T, np.diag(np.geomspace(1, 1e-5, 6)), atol=1e-6
    )


def test_a_power_step_sorts_first() -> None:
    """A basis of eigenvectors in another order is put in theirs."""
    a = single(np.diag([1.0, 3.0, 2.0]))
    turned, order = power_step(
        kronecker.Sides(a, kronecker.NONE), kronecker.Sides(jnp.eye(3), kronecker.NONE)
    )
    assert order.rows.tolist() == [1, 2, 0]
    np.testing.assert_allclose(jnp.abs(turned.rows), np.eye(3)[[1, 2, 0]])


@pytest.mark.parametrize("n", [1, 32, 33, 100])
@pytest.mark.parametrize("spread", [1.0, 1e2, 1e6])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_largest_eigenvalues_are_exact_or_close_from_below(n, spread, scale) -> None:
    a = positive(n, spread, scale=scale)
    got = float(roots.largest_eigenvalue(single(a)))
    assert got <= scale * (1 + 1e-5)
    assert got >= scale * (1 - 1e-5 if n <= 32 or spread == 1 else 0.7)


def test_the_largest_eigenvalue_is_found_beside_directions_without_any() -> None:
    a = np.pad(positive(40, 1e2), (0, 1))
    assert float(roots.largest_eigenvalue(single(a))) >= 0.7


@pytest.mark.parametrize(
    "f",
    [
        lambda a: roots.inverse_root(a, 0.25, 1e-6),
        roots.eigenbasis,
        linalg.orthonormal_rows,
        roots.largest_eigenvalue,
    ],
)
def test_a_batch_is_one_by_one(f) -> None:
    a = single(np.stack([positive(5, 1e2, seed) for seed in range(6)]))
    together = f(a.reshape(2, 3, 5, 5))
    apart = jnp.stack([f(x) for x in a]).reshape(together.shape)
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5)


def test_gradients_of_any_size_have_finite_covariances() -> None:
    """No factorization sees an infinity, which would not end on a CPU."""
    start = time.monotonic()
    for entry in (jnp.inf, jnp.nan, 3e38, -1e25, 1e-30):
        g = {"w": jnp.ones((30, 40)).at[0, 0].set(entry)}
        old = kronecker.zeros(g, 99)
        grams = kronecker.ema_of_grams(0.0, old, numbers.read_square_summable(g))
        for f in (roots.eigenbasis, lambda a: roots.inverse_root(a, 0.5, 0.0)):
            for x in jax.tree.leaves(kronecker.map_squares(f, grams)):
                assert jnp.all(jnp.isfinite(x))
    assert time.monotonic() - start < 20
