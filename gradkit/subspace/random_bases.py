"""How a few directions of a matrix are drawn, whatever its gradient is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import check, random
from gradkit._core.condition import when
from gradkit._core.factory import part
from gradkit._core.matrix import lapack, linalg
from gradkit._core.types import Scalar
from gradkit.subspace import bases
from gradkit.subspace.bases import Basis, Kept


@part
def grassmann_walk(angle: Scalar = 0.5) -> Basis:
    r"""A geodesic of the Grassmann manifold in a random direction, from the singular vectors.

    $$X = \frac{\mathrm{angle}}{\sqrt m} (I - P P^T) Z, \quad Z_{ij} \sim N(0, 1), \quad
      X^T X = S^2, \qquad P \leftarrow \mathrm{orth}(P \cos S + X S^{-1} \sin S)$$

    Args:
        angle: about the largest angle between the old basis and the new one, in radians.

    Paper: Rajabi and others, "Randomized Gradient Subspaces for Efficient Large Language Model
        Training", arXiv:2510.01878, GrassWalk.
    """
    check.nonnegative("subspace.grassmann_walk", angle=angle)

    def renew(kept: Kept, g: jax.Array, key: jax.Array) -> Kept:
        def walk(kept: Kept) -> Kept:
            kept = bases.factored(kept)
            z = random.normals(key, kept.shape, kept.dtype)
            x = z - kept @ (kept.mT @ z)
            x = angle * x / jnp.sqrt(jnp.asarray(x.shape[-2], x.dtype))
            return linalg.orthonormal(geodesic(kept, x))

        def first(kept: Kept) -> Kept:
            return bases.leading(bases.factored(g), kept.shape[-1])

        missing = bases.is_none(kept)
        found = when(jnp.any(missing), first, kept)
        walked = when(~jnp.all(missing), walk, kept)
        return jnp.where(missing, found, walked)

    return Basis(bases.none, bases.each(renew), bases.itself, waits=True)


def grassmann_jump() -> Basis:
    """A basis drawn anew, all alike likely: `orth` of normal numbers.

    Paper: Rajabi and others, "Randomized Gradient Subspaces for Efficient Large Language Model
        Training", arXiv:2510.01878, GrassJump.
    """

    def renew(kept: Kept, g: jax.Array, key: jax.Array) -> Kept:
        return linalg.orthonormal(random.normals(key, kept.shape, kept.dtype))

    return Basis(bases.none, bases.each(renew), bases.itself)


def gaussian() -> Basis:
    """Independent normal vectors of variance `1 / rank`, not orthonormal; kept are their seeds.

    Paper: Zhu and others, "APOLLO: SGD-like Memory, AdamW-level Performance",
        arXiv:2412.05270, Algorithm 1.
    """
    return _seeded(_normals)


def rademacher() -> Basis:
    """Independent signs over the root of `rank`, not orthonormal; kept are their seeds.

    Lengths are kept as by `gaussian`, at a fraction of its cost.

    Paper: Achlioptas, "Database-friendly random projections: Johnson-Lindenstrauss with binary
        coins", doi:10.1016/S0022-0000(03)00025-4, Theorem 1.1.
    """

    def signs(seeds: jax.Array, length: int, dtype: Any) -> jax.Array:
        negative = random.uniform(seeds, length, dtype) < 0
        return jnp.where(negative, -1, 1).astype(dtype)

    return _seeded(signs)


def _seeded(columns: Callable[[jax.Array, int, Any], jax.Array]) -> Basis:
    """What `columns` makes of a seed each, over the root of the rank."""

    def start(shape: tuple[int, ...], dtype: Any, key: Any) -> Kept:
        return jnp.zeros((*shape[:-2], shape[-1]), jnp.uint32)

    def renew(kept: Kept, g: jax.Array, key: jax.Array) -> Kept:
        return jax.random.bits(key, kept.shape, jnp.uint32)

    def vectors(kept: Kept, seen: int, dtype: Any) -> jax.Array:
        rank = jnp.asarray(kept.shape[-1], dtype)
        return columns(kept, seen, dtype) / jnp.sqrt(rank)

    return Basis(start, bases.each(renew), vectors)


def _normals(seeds: jax.Array, length: int, dtype: Any) -> jax.Array:
    """Independent normal numbers `[*batch, length, seeds]`, a column of each seed."""
    column = lambda seed: random.normals(jax.random.key(seed), (length,), dtype)
    return jax.vmap(column)(seeds.ravel()).reshape(*seeds.shape, length).mT


def geodesic(p: jax.Array, x: jax.Array) -> jax.Array:
    """Where the geodesic from the basis `p` ends that begins as `x`, with `p^T x = 0`.

    `p cos(s) + x sin(s) / s` with `s` the root of `x^T x`.
    """
    squares, v = lapack.eigh(x.mT @ x)
    s = jnp.sqrt(jnp.maximum(squares, 0))[..., None, :]
    return (p @ (v * jnp.cos(s)) + x @ (v * jnp.sinc(s / jnp.pi))) @ v.mT
