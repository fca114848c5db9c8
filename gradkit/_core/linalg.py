"""Functions of `[*batch, small, large]`: matrices that are not tall."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import batch, lapack, newton_schulz, tree
from gradkit._core.types import Scalar


def norms(x: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """Euclidean norms along `axis`, which stays; safe for entries of 1e25 and of 1e-30."""
    divisor = tree.divisible(jnp.max(jnp.abs(x), axis, keepdims=True, initial=0))
    squares = jnp.sum(jnp.square(x / divisor), axis, keepdims=True)
    return divisor * jnp.sqrt(squares)


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
    """`p` with the entry of largest size in each column positive, the first of several."""
    first = jnp.argmax(jnp.abs(p), axis=-2, keepdims=True)
    return jnp.where(jnp.take_along_axis(p, first, axis=-2) < 0, -p, p)


@functools.partial(jax.jit, static_argnames="rank")
def principal_basis(x: batch.Matrices, rank: int) -> jax.Array:
    """The first `rank` left singular vectors `[*batch, small, rank]`, largest value first.

    The entry of largest size in each vector is positive, the first of several. Vectors of
    equal singular values are some orthonormal basis of their space: so for a zero matrix.
    """
    rank = min(rank, x.shape[-2])
    if not x.size:
        return jnp.zeros((*x.shape[:-1], rank), x.dtype)
    largest = jnp.max(jnp.abs(x), (-2, -1), keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    gram = jnp.matmul(x, x.mT, precision=jax.lax.Precision.HIGHEST)
    return signed(lapack.eigh(gram)[1][..., : -rank - 1 : -1])
