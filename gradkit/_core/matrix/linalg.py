"""Bases and projections of matrices `[*batch, rows, cols]`."""

import functools

import jax
import jax.numpy as jnp

from gradkit._core import norms, numbers, random
from gradkit._core.matrix import lapack, layout, memory

PRECISE = jax.lax.Precision.HIGHEST
ROUNDINGS = 128  # eps: in another basis zeros come out as up to about 30; with a margin


def above_rounding(x: jax.Array, size: jax.Array) -> jax.Array:
    """`x`, with zeros for entries of at most 128 eps times `size`: those may be rounding errors.

    In another basis zeros become roundings of the entries that they were computed from: products
    are rounded, and vectors of a basis orthogonal to what they should be but for a rounding. What
    divides by root mean squares would make them as large as all others.
    """
    return jnp.where(jnp.abs(x) > ROUNDINGS * jnp.finfo(x.dtype).eps * size, x, 0)


def onto_sphere(p: jax.Array, u: jax.Array, radius: jax.Array) -> jax.Array:
    r"""The update of `p` that ends in the direction of `p + u`, at norm `radius`.

    $\mathrm{radius} \, (p + u) / \lVert p + u \rVert - p$, without the cancellation of a
    small step; `u` itself where `p + u` is zero.
    """
    norm = norms.along(p + u, tuple(range(p.ndim)))
    divisor = jnp.where(norm > 0, numbers.divisible(norm), 1)
    on_sphere = radius / divisor * u + (radius - norm) / divisor * p
    return jnp.where(norm > 0, on_sphere, u)


@jax.jit
def orthonormal(x: jax.Array) -> jax.Array:
    """The columns of `x`, which is not fat, made orthonormal one after the other, as by Gram-Schmidt.

    That is the `Q` of the QR decomposition of which `R` has a positive diagonal.
    """
    if not x.size:
        return x
    q, diagonal = lapack.qr_diagonal(x)
    return jnp.where(diagonal[..., None, :] < 0, -q, q)


@jax.jit
def orthonormal_rows(x: jax.Array) -> jax.Array:
    """The rows of `x`, which is not tall, made orthonormal: `orthonormal` of the transpose."""
    return memory.row_major(orthonormal(x.mT).mT)


def signed(p: jax.Array) -> jax.Array:
    r"""Eigenvectors `p`, each column with the sign at which $\sum_k (2 + \cos k) p_k$ is positive.

    Factorizations take signs from an entry that may be a rounding away from zero, as the largest
    entry may be from another of the same size. A sum with weights that have no pattern is near
    zero by chance only, and of minus an axis it is negative.
    """
    weights = 2 + jnp.cos(jnp.arange(1, p.shape[-2] + 1, dtype=p.dtype))
    sums = jnp.matmul(weights, p, precision=PRECISE)[..., None, :]
    return jnp.where(sums < 0, -p, p)


@functools.partial(jax.jit, static_argnames="rank")
def principal_basis(x: layout.Matrices, rank: int) -> jax.Array:
    """The first `rank` left singular vectors `[*batch, small, rank]`, largest value first.

    They are `signed`. Vectors of equal singular values are some orthonormal basis of their space;
    those of singular values under about a thousandth of the largest are `completed`.
    """
    rank = min(rank, x.shape[-2])
    if not x.size:
        return jnp.zeros((*x.shape[:-1], rank), x.dtype)
    largest = jnp.max(jnp.abs(x), (-2, -1), keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    gram = jnp.matmul(x, x.mT, precision=PRECISE)
    vectors, known = largest_eigenvectors(gram, rank)
    return signed(completed(vectors, known))


def largest_eigenvectors(a: jax.Array, rank: int) -> tuple[jax.Array, jax.Array]:
    """Eigenvectors of the `rank` largest eigenvalues, and a mask of those above rounding errors.

    What should be zero comes out as up to four roundings of the largest eigenvalue.
    """
    values, vectors = lapack.eigh(a)
    values = values[..., None, : -rank - 1 : -1]
    known = values > 8 * jnp.finfo(a.dtype).eps * values[..., :1]
    return vectors[..., : -rank - 1 : -1], known


def completed(x: jax.Array, known: jax.Array) -> jax.Array:
    """Orthonormal columns: those of `x` that are `known`, and what fixed numbers leave besides.

    So directions of the null space do not depend on rounding errors.
    """
    seeds = jnp.arange(1, x.shape[-1] + 1, dtype=jnp.uint32)
    fixed = jnp.broadcast_to(random.uniform(seeds, x.shape[-2], x.dtype), x.shape)
    return orthonormal(jnp.where(known, x, fixed))
