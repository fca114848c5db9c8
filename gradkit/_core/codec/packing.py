"""Packing: two 4-bit codes a byte, along the last axis.

The dtype says how long that axis was: bytes are uint8 if it was even, and int8 if it was odd.
"""

import math

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gradkit._core.codec.blocks import gathered


def pack(codes: jax.Array) -> jax.Array:
    """Pack codes 0 to 15, uint8 `[..., n]`, in bytes `[..., ceil(n / 2)]`.

    The sharding is that of `codes`, but the last axis is gathered if its bytes do not divide.
    """
    *lead, n = codes.shape
    odd = n % 2
    whole = gathered(codes, len(lead))
    even = jnp.pad(whole, [*[(0, 0)] * len(lead), (0, odd)])
    low, high = jnp.moveaxis(even.reshape(*lead, (n + odd) // 2, 2), -1, 0)
    both = low | (high << jnp.uint8(4))
    both = jax.lax.bitcast_convert_type(both, jnp.int8) if odd else both
    return _alike_if_even(both, codes)


def unpack(packed: jax.Array) -> jax.Array:
    """The inverse of `pack`: codes, uint8, with the sharding of `packed` where it divides."""
    *lead, half = packed.shape
    odd = packed.dtype == jnp.int8
    both = gathered(jax.lax.bitcast_convert_type(packed, jnp.uint8), len(lead))
    pairs = jnp.stack([both & jnp.uint8(15), both >> jnp.uint8(4)], -1)
    codes = pairs.reshape(*lead, 2 * half)[..., : 2 * half - odd]
    return _alike_if_even(codes, packed)


def _alike_if_even(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x`, with the sharding of `y`; its last axis stays gathered if it cannot be cut so."""
    mesh, spec = jax.typeof(y).sharding.mesh, jax.typeof(y).sharding.spec
    if all(axis is None for axis in spec):
        return x
    last = spec[-1] if isinstance(spec[-1], tuple) else (spec[-1],)
    count = math.prod(mesh.shape[axis] for axis in last if axis is not None)
    kept = (spec[-1],) if x.shape[-1] % count == 0 else (None,)
    return jax.sharding.reshard(
        x, NamedSharding(mesh, PartitionSpec(*spec[:-1], *kept))
    )
