"""Randomness that a method keeps in its state."""

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
