"""Arrays as rows that are cut into blocks, each with a scale of its own."""

import math

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gradkit._core import shard

Shape = tuple[int, ...]


def scales_of(shape: Shape, block: int) -> Shape:
    """The shape `[..., blocks]` of the scales of an array: its last axes are one row.

    They are as few as have `block` entries together, so that leading axes stay sharded. A row is
    cut into as few blocks as can be, of one length.
    """
    last = range(1, len(shape) + 1)
    long = next((n for n in last if math.prod(shape[-n:]) >= block), len(shape))
    return *shape[:-long], -(-math.prod(shape[-long:]) // block)


def in_blocks(x: jax.Array, scales: Shape) -> jax.Array:
    """`x` as `[..., blocks, block]`, with zeros at the end of its rows.

    An axis that is a part of a row is gathered where arrays are sharded by type.
    """
    *lead, blocks = scales
    length = math.prod(x.shape[len(lead) :])
    block = -(-length // blocks)
    rows = _gathered(x, len(lead)).reshape(*lead, length)
    filled = jnp.pad(rows, [*[(0, 0)] * len(lead), (0, blocks * block - length)])
    return filled.reshape(*lead, blocks, block)


def from_blocks(blocks: jax.Array, like: jax.Array) -> jax.Array:
    """The array of which these are the blocks, of the shape of `like` and sharded as it is."""
    *lead, count, block = blocks.shape
    rows = blocks.reshape(*lead, count * block)
    length = math.prod(like.shape[len(lead) :])
    return shard.alike(rows[..., :length].reshape(like.shape), like)


def in_units(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Absmax scaling: the largest size in each block `[..., block]`, and the block divided by it.

    Numbers are clipped at `1 / tiny`; a block whose largest is below `tiny` is not divided. Neither
    has a derivative.
    """
    least = jnp.finfo(x.dtype).tiny
    x = jnp.clip(jax.lax.stop_gradient(x), -1 / least, 1 / least)
    scale = jnp.max(jnp.abs(x), -1)
    return scale, x / jnp.where(scale >= least, scale, 1)[..., None]


def _gathered(x: jax.Array, lead: int) -> jax.Array:
    """`x`, whose axes after the first so many are on no axis of the mesh."""
    sharding = jax.typeof(x).sharding
    if all(axis is None for axis in sharding.spec[lead:]):
        return x
    kept = PartitionSpec(*sharding.spec[:lead], *[None] * (x.ndim - lead))
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, kept))
