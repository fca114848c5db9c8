"""Inverse roots and eigenbases of positive semidefinite matrices `[*batch, n, n]`.

Matrices are scaled to mean eigenvalue 1 before they are factored.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import norms
from gradkit._core.condition import on_axes_of
from gradkit._core.matrix import lapack, linalg, memory, spectral
from gradkit._core.types import Scalar


def identity(square: jax.Array) -> jax.Array:
    """Identity matrices in the shape and dtype of `square`, `[*batch, n, n]`."""
    eye = jnp.eye(square.shape[-1], dtype=square.dtype)
    return on_axes_of(jnp.broadcast_to(eye, square.shape), square)


def gram(x: jax.Array) -> jax.Array:
    r"""$x x^T$, in full precision."""
    return jnp.matmul(x, x.mT, precision=linalg.PRECISE)


@jax.jit
def inverse_root(a: jax.Array, power: Scalar, damping: Scalar) -> jax.Array:
    r"""$(a + \mathrm{damping} \, \bar\lambda I)^{-\mathrm{power}}$, with the mean eigenvalue $\bar\lambda$.

    Eigenvalues are raised to at least $\epsilon$ times the largest, so no direction is scaled by
    more than $\epsilon^{-\mathrm{power}}$ times another. For $a = 0$ the result is the identity.
    """
    if not a.size:
        return a
    mean, idle, a = mean_eigenvalue(a), _idle(a), _set_apart(a)
    limits = jnp.finfo(a.dtype)

    def damped(values: jax.Array, power: Scalar, damping: Scalar) -> jax.Array:
        sums = jnp.maximum(values, 0) + jnp.asarray(damping, a.dtype)
        sums = jnp.maximum(sums, limits.eps * values[..., -1:])
        return jnp.where(sums > 0, sums, 1) ** -power

    root = spectral.of_eigenvalues(damped, a, power, damping)
    root = jnp.where((idle | idle.mT) & (identity(a) == 0), 0, root)  # exact zeros
    # separate powers: a product of eigenvalues and their mean may underflow
    base = jnp.maximum(jnp.where(mean > 0, mean, 1), limits.tiny)
    size = jnp.minimum(base**-power, limits.max * limits.eps**power)
    return jnp.where(mean > 0, size * root, identity(a)).astype(a.dtype)


def largest_eigenvalue(a: jax.Array) -> jax.Array:
    """The largest eigenvalues `[*batch]`: exact for `n <= 32`, else a lower bound.

    Eight power iterations from the column of the largest diagonal entry find the bound.
    """
    n = a.shape[-1]
    if not a.size:
        return jnp.zeros(a.shape[:-2], a.dtype)
    diagonal = jnp.diagonal(a, axis1=-2, axis2=-1)
    largest = jnp.max(diagonal, -1)
    a = a / jnp.where(largest > 0, largest, 1)[..., None, None]
    if n <= 32:
        return largest * _exact_largest(a)
    start = jnp.argmax(diagonal, -1)[..., None, None]
    x = jnp.take_along_axis(a, start, -1)

    def step(_: int, x: jax.Array) -> jax.Array:
        return a @ (x / jnp.maximum(norms.unscaled(x, (-2, -1)), 1e-30))

    x = jax.lax.fori_loop(0, 8, step, x)
    return largest * norms.unscaled(x, (-2, -1))[..., 0, 0]


@jax.custom_jvp
def _exact_largest(a: jax.Array) -> jax.Array:
    return lapack.eigvalsh(a)[..., -1]


@_exact_largest.defjvp
def _of_exact_largest(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (a,), (change,) = primals, tangents
    x = lapack.eigh(a)[1][..., -1:]
    return _exact_largest(a), jnp.sum(x * (change @ x), (-2, -1))


@jax.jit
def eigenbasis(a: jax.Array) -> jax.Array:
    """Orthonormal eigenvectors as rows, in descending order of eigenvalues."""
    if not a.size:
        return a
    vectors = lapack.eigh(memory.row_major(_set_apart(a)))[1]
    return linalg.signed(vectors).mT[..., ::-1, :]


def power_product(a: jax.Array, basis: jax.Array) -> jax.Array:
    """`basis @ a`, with `a` scaled to mean eigenvalue 1: a power iteration before its QR step."""
    return jnp.matmul(basis, of_mean_one(a), precision=linalg.PRECISE)


def or_before(moved: jax.Array, basis: jax.Array) -> jax.Array:
    """`moved`, with rows of `basis` for zero rows, so that the basis loses no vector."""
    return jnp.where(jnp.any(moved != 0, -1, keepdims=True), moved, basis)


def of_mean_one(a: jax.Array) -> jax.Array:
    """`a / mean_eigenvalue(a)`; zero stays zero."""
    mean = mean_eigenvalue(a)
    return a / jnp.where(mean > 0, mean, 1)


def _set_apart(a: jax.Array) -> jax.Array:
    """`a` scaled to mean eigenvalue 1, with -1 on the diagonal of zero rows.

    A zero row has never had a gradient. At eigenvalue -1 its axis is an eigenvector. At 0 the axis
    could mix with other vectors of the null space, and receive their updates.
    """
    a = of_mean_one(a)
    return a - jnp.where(_idle(a), identity(a), 0)


def _idle(a: jax.Array) -> jax.Array:
    """Whether each row of every matrix is zero, `[*batch, n, 1]`."""
    return jnp.all(a == 0, -1, keepdims=True)


def mean_eigenvalue(a: jax.Array) -> jax.Array:
    """The mean eigenvalue `trace(a) / n` of every matrix, `[*batch, 1, 1]`."""
    return jnp.trace(a, axis1=-2, axis2=-1)[..., None, None] / max(a.shape[-1], 1)
