"""Eight bits a number of a block: the root of its size in units of the largest, and its sign.

Of a block without negative numbers all codes are for positive ones. The scale that is kept of such
a block is the negative of its largest number, that of others their largest size.
"""

import jax
import jax.numpy as jnp

from gradkit._core.codec.blocks import in_units


def encode(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Blocks `[..., block]` as codes, int8 of this shape, and a scale each, `[...]`."""
    scale, ratio = in_units(x)
    positive = (jnp.min(ratio, -1) >= 0) & (scale > 0)
    plain = positive[..., None]
    z = jnp.round(jnp.where(plain, 255, 127) * jnp.sqrt(jnp.abs(ratio)))
    code = jnp.where(plain, jnp.maximum(z, jnp.sign(ratio)) - 128, jnp.sign(ratio) * z)
    return code.astype(jnp.int8), jnp.where(positive, -scale, scale)


def decode(code: jax.Array, scale: jax.Array) -> jax.Array:
    """The blocks of these codes, in the dtype of the scales."""
    plain, code = (scale < 0)[..., None], code.astype(scale.dtype)
    z = jnp.where(plain, (code + 128) / 255, code / 127)
    return jnp.abs(scale)[..., None] * z * jnp.abs(z)
