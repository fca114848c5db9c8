"""Percentiles of some of a vector's entries."""

import jax
import jax.numpy as jnp


def of_first(x: jax.Array, kept: jax.Array, percentile: jax.Array | float) -> jax.Array:
    """The percentile of the `kept` first entries, linear between neighbours; 0 of none."""
    place = jnp.arange(x.size, dtype=jnp.int32)
    ordered = jnp.sort(jnp.where(place < kept, x, jnp.finfo(x.dtype).max))
    ordered = jnp.where(place < kept, ordered, 0)
    rank = percentile / 100 * jnp.maximum(kept - 1, 0).astype(x.dtype)
    share = jnp.maximum(1 - jnp.abs(place.astype(x.dtype) - rank), 0)
    return jnp.sum(share * ordered).astype(x.dtype)
