"""Percentiles of the first entries of a vector."""

import jax
import jax.numpy as jnp


def of_first(
    x: jax.Array, count: jax.Array, percentile: jax.Array | float
) -> jax.Array:
    """The percentile of `x[:count]`, with linear interpolation; 0 if `count` is 0."""
    place = jnp.arange(x.size, dtype=jnp.int32)
    ordered = jnp.sort(jnp.where(place < count, x, jnp.finfo(x.dtype).max))
    ordered = jnp.where(place < count, ordered, 0)
    rank = percentile / 100 * jnp.maximum(count - 1, 0).astype(x.dtype)
    weight = jnp.maximum(1 - jnp.abs(place.astype(x.dtype) - rank), 0)
    return jnp.sum(weight * ordered).astype(x.dtype)
