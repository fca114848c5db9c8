"""Functions of `[*batch, small, large]`: matrices that are not tall."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import batch, lapack, newton_schulz, tree
from gradkit._core.derivative import root
from gradkit._core.types import Scalar

PRECISE = jax.lax.Precision.HIGHEST
ROUNDINGS = 128  # in another basis zeros come out as up to about thirty; with a margin


def norms(x: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """Euclidean norms along `axis`, which stays; safe for entries of 1e25 and of 1e-30."""
    x = tree.opaque(x)
    largest = jnp.max(jnp.abs(x), axis, keepdims=True, initial=0)
    divisor = tree.divisible(jax.lax.stop_gradient(largest))  # any would do
    squares = jnp.sum(jnp.square(x / divisor), axis, keepdims=True)
    return divisor * root(squares)


def norms_in_one_pass(
    *pairs: tuple[jax.Array, int | tuple[int, ...]],
) -> list[jax.Array]:
    """Euclidean norms of the finite entries of each array along axes, which stay.

    As safe as `norms`, which takes three passes where one will do for most gradients.
    """
    if not pairs:
        return []
    pairs = tree.opaque(pairs)
    sums = [jnp.sum(jnp.square(x), axes, keepdims=True) for x, axes in pairs]
    limits = [jnp.finfo(x.dtype) for x in sums]
    fit = [(x > m.tiny / m.eps**2) & (x < m.max) for x, m in zip(sums, limits)]
    return jax.lax.cond(
        functools.reduce(jnp.logical_and, map(jnp.all, fit)),
        lambda: [root(x) for x in sums],
        lambda: [norms(tree.finite(x), axes) for x, axes in pairs],
    )


def above_rounding(x: jax.Array, size: jax.Array) -> jax.Array:
    """`x`, of which what may be the rounding of entries of this `size` counts as zero.

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
    norm = norms(p + u, tuple(range(p.ndim)))
    divisor = jnp.where(norm > 0, tree.divisible(norm), 1)
    on_sphere = radius / divisor * u + (radius - norm) / divisor * p
    return jnp.where(norm > 0, on_sphere, u)


@functools.partial(jax.jit, static_argnames=("coefficients", "dtype"))
def polar(
    x: batch.Matrices,
    eps: Scalar,
    coefficients: newton_schulz.Coefficients = newton_schulz.JORDAN,
    dtype: Any = None,
) -> batch.Matrices:
    r"""About the nearest matrix with orthonormal rows: every singular value near 1.

    Newton-Schulz steps $X \leftarrow (aI + bR + cR^2) X$, $R = XX^T$, from $X = x /
    (\lVert x \rVert_F + \mathrm{eps})$, done in `dtype`. A zero matrix stays zero.
    """
    size = norms(x, (-2, -1)) + jnp.asarray(eps, x.dtype)
    unit = (x / jnp.where(size > 0, size, 1)).astype(dtype or x.dtype)
    for run in runs(coefficients, unit.shape, unit.dtype):
        unit = multiplier(unit @ unit.mT, run) @ unit
    return unit.astype(x.dtype)


def multiplier(r: jax.Array, run: newton_schulz.Coefficients) -> jax.Array:
    """What several steps multiply $X$ by, from its Gram matrix `r`, which follows them."""
    identity = jnp.broadcast_to(jnp.eye(r.shape[-1], dtype=r.dtype), r.shape)
    q = identity
    for i, (a, b, c) in enumerate(run):
        p = a * identity + (b * r + c * (r @ r) if c else b * r)
        q = p @ q if i else p
        r = p @ r @ p if i + 1 < len(run) else r
    return q


def runs(
    coefficients: newton_schulz.Coefficients, shape: tuple[int, ...], dtype: Any
) -> list[newton_schulz.Coefficients]:
    """The steps, in runs that share one Gram matrix: as long as cost and rounding allow.

    A new Gram matrix costs `2 * large / small` products of small matrices and saves three. What
    rounding leaves in it where the matrix is near zero grows by `a^2` a step, up to the root of
    where it began.
    """
    small, large = shape[-2:]
    limit = 0 if 2 * large <= 3 * small else rounding(dtype) ** -0.5
    found, growth = [], math.inf
    for triple in coefficients:
        if growth > limit:
            found, growth = [*found, ()], 1
        found[-1], growth = (*found[-1], triple), growth * triple[0] ** 2
    return found


def rounding(dtype: Any) -> float:
    """The relative error of a product: accelerators may round float32 as bfloat16 before it."""
    exact = jax.default_backend() == "cpu" or jax.default_matmul_precision.value
    as_if = dtype if exact or dtype != jnp.float32 else jnp.bfloat16
    return float(jnp.finfo(as_if).eps)


@jax.jit
def orthonormal(x: jax.Array) -> jax.Array:
    """Orthonormal columns that span those of `x`, the first of them first, on their own side."""
    if not x.size:
        return x
    q, r = lapack.qr(x)
    diagonal = jnp.diagonal(r, axis1=-2, axis2=-1)[..., None, :]
    return jnp.where(diagonal < 0, -q, q)


def signed(p: jax.Array) -> jax.Array:
    r"""`p`, each column with the sign at which $\sum_k (2 + \cos k) p_k$ is positive.

    Factorizations take signs from an entry that may be a rounding away from zero, as the largest
    entry may be from another of the same size. A sum with weights that have no pattern is near
    zero by chance only, and of minus an axis it is negative.
    """
    weights = 2 + jnp.cos(jnp.arange(1, p.shape[-2] + 1, dtype=p.dtype))
    sums = jnp.matmul(weights, p, precision=PRECISE)[..., None, :]
    return jnp.where(sums < 0, -p, p)


@functools.partial(jax.jit, static_argnames="rank")
def principal_basis(x: batch.Matrices, rank: int) -> jax.Array:
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
    """Those of the `rank` largest eigenvalues, and which are of more than rounding.

    What should be zero comes out as up to four roundings of the largest eigenvalue.
    """
    values, vectors = lapack.eigh(a)
    values = values[..., None, : -rank - 1 : -1]
    known = values > 8 * jnp.finfo(a.dtype).eps * values[..., :1]
    return vectors[..., : -rank - 1 : -1], known


def completed(x: jax.Array, known: jax.Array) -> jax.Array:
    """Orthonormal columns: those of `x` that are `known`, and what fixed numbers leave besides.

    So no direction that nothing is known of is one that rounding has chosen.
    """
    seeds = jnp.arange(1, x.shape[-1] + 1, dtype=jnp.uint32)
    fixed = jnp.broadcast_to(uniform(seeds, x.shape[-2], x.dtype), x.shape)
    return orthonormal(jnp.where(known, x, fixed))


def uniform(seeds: jax.Array, length: int, dtype: Any) -> jax.Array:
    """Independent numbers in [-1, 1), `[*batch, length, seeds]`, a column of each seed.

    Each is its seed and place, mixed by Wellons' lowbias32: at a fraction of the cost of a draw.
    """
    word = seeds.dtype.type
    shape = (*seeds.shape, length)
    places = jax.lax.broadcasted_iota(seeds.dtype, shape, seeds.ndim)
    mixed = seeds[..., None] + places * word(0x9E3779B9)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed = (mixed ^ mixed >> word(shift)) * word(factor)
    return jax.lax.bitcast_convert_type(mixed, jnp.int32).astype(dtype).mT / 2.0**31
