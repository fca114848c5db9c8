"""Inverse roots and eigenbases of positive matrices `[*batch, n, n]`.

Factorizations see finite matrices of mean eigenvalue 1, whatever the size of the gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import derivative
from gradkit._core.condition import on_axes_of
from gradkit._core.matrix import lapack, linalg, spectral
from gradkit._core.types import Scalar


def identity(square: jax.Array) -> jax.Array:
    """The identities of the shape `[*batch, n, n]` of another array."""
    eye = jnp.eye(square.shape[-1], dtype=square.dtype)
    return on_axes_of(jnp.broadcast_to(eye, square.shape), square)


def squarable(x: jax.Array) -> jax.Array:
    """`x`, its entries limited so that the sum of their squares is finite."""
    largest = jnp.sqrt(jnp.finfo(x.dtype).max / (4 * max(x.size, 1))).astype(x.dtype)
    return jnp.clip(x, -largest, largest)


def gram(x: jax.Array) -> jax.Array:
    r"""$x x^T$, in full precision."""
    return jnp.matmul(x, x.mT, precision=linalg.PRECISE)


@jax.jit
def inverse_root(a: jax.Array, power: Scalar, damping: Scalar) -> jax.Array:
    r"""$(a + \mathrm{damping} \, \bar\lambda I)^{-\mathrm{power}}$, $\bar\lambda$ the mean eigenvalue.

    Eigenvalues under a rounding of the largest count as that much, so that no direction gets
    more than $\epsilon^{-\mathrm{power}}$. Of zero it is the identity.
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
    root = jnp.where((idle | idle.mT) & (identity(a) == 0), 0, root)  # but for rounding
    # the two powers apart: a product of eigenvalues and their mean may underflow
    known = jnp.maximum(jnp.where(mean > 0, mean, 1), limits.tiny)
    size = jnp.minimum(known**-power, limits.max * limits.eps**power)
    return jnp.where(mean > 0, size * root, identity(a)).astype(a.dtype)


def largest_eigenvalue(a: jax.Array) -> jax.Array:
    """That of every `[*batch, n, n]`: exact up to `n` of 32, else a lower bound, of sizes `[*batch]`.

    The bound is eight power steps from the column of the largest diagonal entry.
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
        return a @ (x / jnp.maximum(_length(x), 1e-30))

    return largest * _length(jax.lax.fori_loop(0, 8, step, x))[..., 0, 0]


def _length(x: jax.Array) -> jax.Array:
    return derivative.root(jnp.sum(jnp.square(x), (-2, -1), keepdims=True))


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
    """Orthonormal eigenvectors as rows, that of the largest eigenvalue first."""
    if not a.size:
        return a
    vectors = lapack.eigh(row_major(_set_apart(a)))[1]
    return linalg.signed(vectors).mT[..., ::-1, :]


@jax.jit
def orthonormal_rows(x: jax.Array) -> jax.Array:
    """Orthonormal rows, the first of which span what the first of `x` do."""
    return row_major(linalg.signed(lapack.orthonormal(x.mT)).mT)


def row_major(x: jax.Array) -> jax.Array:
    """`x`, in memory row by row on both sides of LAPACK, which has it column by column.

    XLA would give LAPACK's order to what the state keeps, and copy it at every update.
    """
    return jax.lax.optimization_barrier(x.reshape(-1)).reshape(x.shape)


def of_mean_one(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`a` over its mean eigenvalue, and that, `[*batch, 1, 1]`; zero stays zero."""
    mean = mean_eigenvalue(a)
    return a / jnp.where(mean > 0, mean, 1), mean


def _set_apart(a: jax.Array) -> jax.Array:
    """`a` over its mean eigenvalue, and -1 on the diagonal where its row is zero.

    Such a row never had a gradient. Its axis is then an eigenvector of its own, the last, and not
    one of the many of eigenvalue 0, in which it would be mixed with others and move as they do.
    """
    a = of_mean_one(a)[0]
    return a - jnp.where(_idle(a), identity(a), 0)


def _idle(a: jax.Array) -> jax.Array:
    """Whether each row of every matrix is zero, `[*batch, n, 1]`."""
    return jnp.all(a == 0, -1, keepdims=True)


def mean_eigenvalue(a: jax.Array) -> jax.Array:
    """That of every matrix, `[*batch, 1, 1]`."""
    return jnp.trace(a, axis1=-2, axis2=-1)[..., None, None] / max(a.shape[-1], 1)
