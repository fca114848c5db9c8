"""Fira's norm-growth limiter, which APOLLO uses too."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core.types import Scalar


def norm_growth_limiter(
    norm: jax.Array,
    last: jax.Array,
    growth: Scalar,
    eps: Scalar,
    floor: Scalar = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """The factor that limits `norm` to `growth` times the `last` one, and the next `last`.

    The norm grows freely up to `floor`, and from the initial `last` of zero. A `norm` of zero
    leaves `last` as it was.

    Paper: Chen and others, "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
        Constraint?", arXiv:2410.01623, Algorithm 1, the norm-growth limiter.
    """
    limit = jnp.maximum(growth * (last + eps), floor)
    kept = jnp.where(last > 0, jnp.minimum(limit, norm), norm).astype(last.dtype)
    moves = norm > 0
    factor = jnp.where(moves, kept / jnp.where(moves, norm, 1), 1)
    return factor, jnp.where(moves, kept, last)


def norm_of_rms(rms: Scalar, x: jax.Array) -> jax.Array:
    """The norm that each matrix of `x` has if its entries have this RMS."""
    return jnp.asarray(rms, x.dtype) * math.prod(x.shape[-2:]) ** 0.5


def zero_norm(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """The last norm of each matrix before there is one, `[*batch, 1, 1]`."""
    return jnp.zeros((*shape[:-2], 1, 1), dtype)
