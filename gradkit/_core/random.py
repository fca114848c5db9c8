"""Keys, and random numbers from keys or seeds."""

from typing import Any

import jax
import jax.numpy as jnp


def uniform(seeds: jax.Array, length: int, dtype: Any) -> jax.Array:
    """Pseudorandom numbers in [-1, 1), `[*batch, length, seeds]`, one column for each seed.

    Each is a hash of its seed and row by Wellons' lowbias32, which is cheaper than `jax.random`.
    """
    word = seeds.dtype.type
    shape = (*seeds.shape, length)
    places = jax.lax.broadcasted_iota(seeds.dtype, shape, seeds.ndim)
    mixed = seeds[..., None] + places * word(0x9E3779B9)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed = (mixed ^ mixed >> word(shift)) * word(factor)
    return jax.lax.bitcast_convert_type(mixed, jnp.int32).astype(dtype).mT / 2.0**31


Key = int | jax.Array  # a seed, a key, or a key's data


def typed(key: Key) -> jax.Array:
    """A typed `jax.random` key from a seed, a key or a key's data."""
    if not isinstance(key, int):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            return key
        if key.ndim:
            return jax.random.wrap_key_data(key)
    return jax.random.key(key)


def split(data: jax.Array, count: int, like: Key) -> jax.Array:
    """`count` keys split from the key data `data`, with the PRNG implementation of `like`."""
    impl = jax.random.key_impl(typed(like))
    return jax.random.split(jax.random.wrap_key_data(data, impl=impl), count)


def normals(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Standard normal numbers, drawn in float32 and cast: the same ones for every dtype."""
    return jax.random.normal(key, shape, jnp.float32).astype(dtype)
