"""Where shardings are explicit: an array gathered, and an array sharded as another is."""

import jax
from jax.sharding import NamedSharding, PartitionSpec


def whole(x: jax.Array) -> jax.Array:
    """`x` on no axis of the mesh, so that it may be reshaped freely."""
    sharding = jax.typeof(x).sharding
    if all(axis is None for axis in sharding.spec):
        return x
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec()))


def alike(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x` sharded as `y` is."""
    here, there = jax.typeof(x).sharding, jax.typeof(y).sharding
    return x if here == there else jax.sharding.reshard(x, there)
