"""Johnson-Lindenstrauss random projections, kept as seeds: Gaussian and Rademacher."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import random
from gradkit.subspace import bases
from gradkit.subspace.parts import Basis, BasisState


def gaussian() -> Basis:
    """A Gaussian sketch: independent normal numbers of variance `1 / rank`, not orthonormal.

    Paper: Zhu and others, "APOLLO: SGD-like Memory, AdamW-level Performance",
        arXiv:2412.05270, Algorithm 1.
    """

    def normals(seeds: jax.Array, length: int, dtype: Any) -> jax.Array:
        column = lambda seed: random.normals(jax.random.key(seed), (length,), dtype)
        return jax.vmap(column)(seeds.ravel()).reshape(*seeds.shape, length).mT

    return _seeded(normals)


def rademacher() -> Basis:
    """A Rademacher sketch: independent signs divided by the root of `rank`, not orthonormal.

    It preserves lengths as `gaussian` does, at a fraction of the cost.

    Paper: Achlioptas, "Database-friendly random projections: Johnson-Lindenstrauss with binary
        coins", doi:10.1016/S0022-0000(03)00025-4, Theorem 1.1.
    """

    def signs(seeds: jax.Array, length: int, dtype: Any) -> jax.Array:
        negative = random.uniform(seeds, length, dtype) < 0
        return jnp.where(negative, -1, 1).astype(dtype)

    return _seeded(signs)


def _seeded(columns: Callable[[jax.Array, int, Any], jax.Array]) -> Basis:
    """A basis whose columns are each made from a kept seed, and divided by the root of the rank."""

    def init(shape: tuple[int, ...], dtype: Any, key: Any) -> jax.Array:
        return jnp.zeros((*shape[:-2], shape[-1]), jnp.uint32)

    def renew(state: BasisState, g: jax.Array, key: jax.Array) -> jax.Array:
        return jax.random.bits(key, state.data.shape, jnp.uint32)

    def vectors(seeds: jax.Array, projected: int, dtype: Any) -> jax.Array:
        rank = jnp.asarray(seeds.shape[-1], dtype)
        return columns(seeds, projected, dtype) / jnp.sqrt(rank)

    return Basis(init, bases.each(renew), vectors)
