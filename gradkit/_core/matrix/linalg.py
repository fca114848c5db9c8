"""Bases and projections of matrices `[*batch, rows, cols]`."""

import functools

import jax
import jax.numpy as jnp

from gradkit._core import norms, numbers, random
from gradkit._core.matrix import lapack, layout, memory

PRECISE = jax.lax.Precision.HIGHEST
ROUNDINGS = 128  # in eps: a change of basis turns zeros into up to about 30 eps


def above_rounding(x: jax.Array, size: jax.Array) -> jax.Array:
    """`x`, with zeros for entries up to 128 eps times `size`, which may be rounding errors.

    Products are rounded, and basis vectors are orthogonal only up to rounding. So a change of
    basis turns zeros into rounding errors. Division by the RMS would make these errors as large
    as all other entries.
    """
    return jnp.where(jnp.abs(x) > ROUNDINGS * jnp.finfo(x.dtype).eps * size, x, 0)


def onto_sphere(p: jax.Array, u: jax.Array, radius: jax.Array) -> jax.Array:
    r"""The update from `p` to the vector of norm `radius` in the direction of `p + u`.

    It is $\mathrm{radius} \, (p + u) / \lVert p + u \rVert - p$, computed without the
    cancellation of a small step. Where `p + u` is zero, it is `u` itself.
    """
    (norm,) = norms.finite_along((p + u, tuple(range(p.ndim))))
    divisor = jnp.where(norm > 0, numbers.divisible(norm), 1)
    on_sphere = radius / divisor * u + (radius - norm) / divisor * p
    return jnp.where(norm > 0, on_sphere, u)


@jax.jit
def orthonormal(x: jax.Array) -> jax.Array:
    """`Q` of the QR decomposition of `x` in which `R` has a positive diagonal, as by Gram-Schmidt.

    `x` has at least as many rows as columns.
    """
    if not x.size:
        return x
    q, diagonal = lapack.qr_diagonal(x)
    return jnp.where(diagonal[..., None, :] < 0, -q, q)


@jax.jit
def orthonormal_rows(x: jax.Array) -> jax.Array:
    """`orthonormal` of the rows of `x`, which has at most as many rows as columns."""
    return memory.row_major(orthonormal(x.mT).mT)


def signed(p: jax.Array) -> jax.Array:
    r"""Eigenvectors `p`, each column with the sign at which $\sum_k (2 + \cos k) p_k$ is positive.

    Factorizations take the sign from one entry, which a rounding may flip or replace by another
    of the same size. A sum with patternless weights is near zero by chance only. The sum is
    positive for every coordinate axis.
    """
    weights = 2 + jnp.cos(jnp.arange(1, p.shape[-2] + 1, dtype=p.dtype))
    sums = jnp.matmul(weights, p, precision=PRECISE)[..., None, :]
    return jnp.where(sums < 0, -p, p)


@functools.partial(jax.jit, static_argnames="rank")
def principal_basis(x: layout.Matrices, rank: int) -> jax.Array:
    """The first `rank` left singular vectors `[*batch, small, rank]`, largest value first.

    They are `signed`. For equal singular values they are any orthonormal basis of the space. In
    float32, those of singular values under about a thousandth of the largest are `completed`.
    """
    rank = min(rank, x.shape[-2])
    if not x.size:
        return jnp.zeros((*x.shape[:-1], rank), x.dtype)
    largest = jnp.max(jnp.abs(x), (-2, -1), keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    gram = jnp.matmul(x, x.mT, precision=PRECISE)
    vectors, exact = largest_eigenvectors(gram, rank)
    return signed(completed(vectors, exact))


def largest_eigenvectors(a: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
    """Eigenvectors of the `rank` largest eigenvalues, and a mask of those above rounding.

    Rounding turns zero eigenvalues into up to four eps times the largest.
    """
    values, vectors = lapack.eigh(a)
    values = values[..., None, : -rank - 1 : -1]
    exact = values > 8 * jnp.finfo(a.dtype).eps * values[..., :1]
    return vectors[..., : -rank - 1 : -1], exact


def completed(x: jax.Array, exact: jax.Array) -> jax.Array:
    """Orthonormal columns: those of `x` where `exact`, else fixed numbers, orthogonalized.

    Directions in the null space then do not depend on rounding errors.
    """
    seeds = jnp.arange(1, x.shape[-1] + 1, dtype=jnp.uint32)
    fixed = jnp.broadcast_to(random.uniform(seeds, x.shape[-2], x.dtype), x.shape)
    return orthonormal(jnp.where(exact, x, fixed))
