"""Dither: a threshold for each entry and update, so that rounding keeps the mean over time.

Rounded to the nearest code, an EMA stands still where an update changes it by less than half a
code, and lags behind what it is of. The thresholds of an entry are a golden ratio rotation: those of
successive updates are spread evenly, which leaves less noise than random numbers. They are a function of
index and count alone: no key, and the same under jit, vmap and sharding.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import shard

GOLDEN = 0x9E3779B1  # 2^32 over the golden ratio, odd: multiplying by it loses nothing
MARGIN = 1e-4  # of a code: closer numbers are codes, but for rounding errors


def bits(count: Any, like: jax.Array) -> jax.Array:
    """Uniform uint32 in the shape of `like`: a hash of the index, rotated by `count`."""
    mixed = jnp.zeros_like(like, np.uint32)
    for axis in range(like.ndim):
        index = jax.lax.broadcasted_iota(np.uint32, like.shape, axis)
        mixed = (mixed ^ shard.alike(index, like)) * np.uint32(GOLDEN)
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x85EBCA6B)
    turn = jnp.asarray(count).astype(np.uint32) * np.uint32(GOLDEN)
    return (mixed ^ (mixed >> np.uint32(13))) + turn


def fraction(bits: jax.Array, dtype: Any) -> jax.Array:
    """`bits` as numbers between 0 and 1, by at least `MARGIN`."""
    uniform = (bits >> np.uint32(8)).astype(dtype) * 2.0**-24
    return MARGIN + (1 - 2 * MARGIN) * uniform
