"""Arrays cut into blocks, each with its own scale, for quantization."""

import math

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gradkit._core import shard

Shape = tuple[int, ...]


def scales_of(shape: Shape, block: int) -> Shape:
    """The shape `[..., blocks]` of the scales of an array of this shape.

    The fewest last axes with at least `block` entries together form one row; all axes before stay,
    with their sharding. A row is cut into the fewest blocks of equal length, at most `block`.
    """
    last = range(1, len(shape) + 1)
    long = next((n for n in last if math.prod(shape[-n:]) >= block), len(shape))
    return *shape[:-long], -(-math.prod(shape[-long:]) // block)


def in_blocks(x: jax.Array, scales: Shape) -> jax.Array:
    """`x` as `[..., blocks, block]`, for scales of the shape `scales`; rows are padded with zeros.

    On an Explicit mesh the axes that form a row are gathered.
    """
    *lead, blocks = scales
    length = math.prod(x.shape[len(lead) :])
    block = -(-length // blocks)
    rows = gathered(x, len(lead)).reshape(*lead, length)
    filled = jnp.pad(rows, [*[(0, 0)] * len(lead), (0, blocks * block - length)])
    return filled.reshape(*lead, blocks, block)


def from_blocks(blocks: jax.Array, like: jax.Array) -> jax.Array:
    """The inverse of `in_blocks`: an array of the shape and sharding of `like`."""
    *lead, count, block = blocks.shape
    rows = blocks.reshape(*lead, count * block)
    length = math.prod(like.shape[len(lead) :])
    return shard.alike(rows[..., :length].reshape(like.shape), like)


def in_units(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Absmax scaling: `scale = max(abs(x))` of each block `[..., block]`, and `x / scale`.

    Entries are clipped to `1 / tiny`, and a block with a scale below `tiny` is not divided. Both
    results have zero derivative.
    """
    x = bounded(x)
    scale = jnp.max(jnp.abs(x), -1)
    return scale, divided(x, scale[..., None])


def bounded(x: jax.Array) -> jax.Array:
    """`x`, clipped to `1 / tiny`, with zero derivative."""
    least = jnp.finfo(x.dtype).tiny
    return jnp.clip(jax.lax.stop_gradient(x), -1 / least, 1 / least)


def divided(x: jax.Array, scale: jax.Array) -> jax.Array:
    """`x / scale`, and `x` where the scale is below `tiny`."""
    return x / jnp.where(scale >= jnp.finfo(x.dtype).tiny, scale, 1)


def gathered(x: jax.Array, lead: int) -> jax.Array:
    """`x`, gathered along all axes but the first `lead`."""
    sharding = jax.typeof(x).sharding
    if all(axis is None for axis in sharding.spec[lead:]):
        return x
    kept = PartitionSpec(*sharding.spec[:lead], *[None] * (x.ndim - lead))
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, kept))
