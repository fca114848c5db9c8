"""Kronecker factors that make matrices white: triangles and diagonals, from both sides.

A matrix is `[*batch, rows, cols]`; a factor of a side of `n` is `[*batch, n, n]`, of which the
lower triangle is zero, or the diagonal `[*batch, n]`, or None, which is 1. Kept beside each is its
Gram matrix, full or diagonal likewise, so that to whiten takes half of the products.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers
from gradkit._core.condition import on_axes_of
from gradkit._core.matrix import lapack, layout, roots
from gradkit._core.types import Scalar

Factor = jax.Array | None


class Factors(NamedTuple):
    """What whitens one leaf; a side of length 1 has none, unless it is the only one."""

    rows: Factor  # Q
    cols: Factor  # R
    rows_gram: Factor  # Q^T Q
    cols_gram: Factor  # R^T R
    rows_curvature: Factor  # how strongly fits pull at each, [*batch]
    cols_curvature: Factor


def identities(p: Any, max_size: int, batch_axes: layout.Axes) -> Factors:
    """The first factors of a leaf: triangles of the sides of a matrix up to `max_size`."""
    check.concrete("precondition_by_psgd", max_size=max_size)
    lengths, rows, cols = layout.shape(p, batch_axes)
    matrix, dtype = rows > 1 and cols > 1, numbers.wide_dtype(p)

    def factor(n: int) -> jax.Array:
        one = (jnp.eye if matrix and n <= max_size else jnp.ones)(n, dtype=dtype)
        return on_axes_of(jnp.broadcast_to(one, (*lengths, *one.shape)), p)

    def sides(f: Callable[[int], jax.Array]) -> list[Factor]:
        kept = rows > 1, cols > 1 or rows < 2
        return [f(n) if keep else None for n, keep in zip((rows, cols), kept)]

    still = sides(lambda n: on_axes_of(jnp.zeros(lengths, dtype), p))
    return Factors(*sides(factor), *sides(factor), *still)


def product(q: Factor, x: jax.Array, r: Factor) -> jax.Array:
    r"""$Q x R^T$."""
    if q is not None:
        x = q @ x if q.ndim == x.ndim else q[..., None] * x
    if r is not None:
        x = x @ r.mT if r.ndim == x.ndim else x * r[..., None, :]
    return x


def of_triangles(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a @ b` where the lower triangles of both are zero: of large ones with half of the work."""
    n = b.shape[-1] // 2
    if n < 256:
        return a @ b
    first = of_triangles(a[..., :n, :n], b[..., :n, :n])
    last = of_triangles(a[..., n:, n:], b[..., n:, n:])
    corner = a[..., :n, :] @ b[..., n:]
    return jnp.block([[first, corner], [jnp.zeros_like(corner).mT, last]])


def quotient(q: Factor, x: jax.Array, r: Factor) -> jax.Array:
    r"""$Q^{-T} x R^{-1}$, of transposes throughout: these are LAPACK's columns in memory."""
    solve, y = functools.partial(lapack.solve_triangular, lower=True), x.mT
    if r is not None:
        y = solve(r.mT, y, left_side=True) if r.ndim == y.ndim else y / r[..., None]
    if q is not None and q.ndim == y.ndim:
        y = solve(q.mT, y, transpose_a=True)
    elif q is not None:
        y = y / q[..., None, :]
    return y.mT


def fitted(
    f: Factors, h: jax.Array, v: jax.Array, rate: Scalar, decay: Scalar
) -> Factors:
    r"""The factors after a step towards those that make `h` as white as `v` is.

    $Q \leftarrow Q - \mathrm{rate} \, / \, \lambda \, \mathrm{triu}(A A^T - B B^T) \, Q$ with $A = Q h R^T$
    and $B = Q^{-T} v R^{-1}$, where $\lambda$ is the curvature; $R$ likewise, by $A^T A$ and $B^T B$.
    """
    a = roots.squarable(product(f.rows, h, f.cols))
    b = roots.squarable(quotient(f.rows, v, f.cols))

    def side(q: Factor, old: Factor, a: jax.Array, b: jax.Array) -> list[Factor]:
        if q is None or old is None:
            return [None, None, None]
        if q.ndim == a.ndim:
            aa, bb = a @ a.mT, b @ b.mT
            size = roots.largest_eigenvalue(aa + bb)
        else:
            aa, bb = jnp.sum(a * a, -1), jnp.sum(b * b, -1)
            size = jnp.max(aa + bb, -1, initial=0)
        curvature = jnp.maximum(size, decay * old + (1 - decay) * size)
        divisor = jnp.where(curvature > 0, curvature, 1)
        divisor = divisor.reshape(divisor.shape + (1,) * (q.ndim - divisor.ndim))
        pull = (rate * ((aa - bb) / divisor)).astype(
            q.dtype
        )  # of entries up to the rate
        if q.ndim == a.ndim:
            q = q - of_triangles(jnp.triu(pull), q)
            return [q, q.mT @ q, curvature.astype(q.dtype)]
        q = q - pull * q
        return [q, q * q, curvature.astype(q.dtype)]

    rows = side(f.rows, f.rows_curvature, a, b)
    cols = side(f.cols, f.cols_curvature, a.mT, b.mT)
    return Factors(*itertools.chain(*zip(rows, cols)))


def whitened(
    f: Factors, x: jax.Array, scale: Scalar, max_rms: Scalar, max_entry: Scalar
) -> jax.Array:
    r"""$\mathrm{scale}^2 Q^T Q x R^T R$, its root mean square and then its entries at most these.

    The factors see entries of at most 1, so that nothing overflows before it is limited.
    """
    size = jnp.max(jnp.abs(x), (-2, -1), keepdims=True, initial=0)
    unit = x / jnp.where(size > 0, size, 1)
    u = numbers.finite(scale**2 * product(f.rows_gram, unit, f.cols_gram))
    rms = norms.along(u, (-2, -1)) / max(math.prod(u.shape[-2:]), 1) ** 0.5
    room = max_rms / jnp.where(rms > 0, rms, 1)
    short = (u * jnp.minimum(size, room)).astype(u.dtype)
    return jnp.clip(short, -max_entry, max_entry).astype(u.dtype)
