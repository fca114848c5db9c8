"""Randomness that a method keeps in its state."""

from typing import Any

import jax
import jax.numpy as jnp

Key = int | jax.Array  # a seed, a key, or a key's data


def typed(key: Key) -> jax.Array:
    """A seed, the data of a key, or a key, as a key."""
    if not isinstance(key, int):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            return key
        if key.ndim:
            return jax.random.wrap_key_data(key)
    return jax.random.key(key)


def split(data: jax.Array, count: int, like: Key) -> jax.Array:
    """Keys from the data of one of the kind of another."""
    impl = jax.random.key_impl(typed(like))
    return jax.random.split(jax.random.wrap_key_data(data, impl=impl), count)


def normals(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Standard normal numbers, drawn in float32: the same of one key in every dtype."""
    return jax.random.normal(key, shape, jnp.float32).astype(dtype)
