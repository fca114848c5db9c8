"""Quantization to int8: code `127 * sign(x) * sqrt(|x| / scale)`, with the absmax scale of a block.

A block without negative numbers uses all 256 codes, as `255 * sqrt(x / scale) - 128`. The sign bit
of the scale marks such a block.
"""

import jax
import jax.numpy as jnp

from gradkit._core.codec.blocks import in_units


def encode(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Encode blocks `[..., block]` as int8 codes of this shape and scales `[...]`."""
    scale, ratio = in_units(x)
    positive = (jnp.min(ratio, -1) >= 0) & (scale > 0)
    plain = positive[..., None]
    z = jnp.round(jnp.where(plain, 255, 127) * jnp.sqrt(jnp.abs(ratio)))
    code = jnp.where(plain, jnp.maximum(z, jnp.sign(ratio)) - 128, jnp.sign(ratio) * z)
    return code.astype(jnp.int8), jnp.where(positive, -scale, scale)


def decode(code: jax.Array, scale: jax.Array) -> jax.Array:
    """Decode codes `[..., block]` to numbers in the dtype of the scales `[...]`."""
    plain, code = (scale < 0)[..., None], code.astype(scale.dtype)
    z = jnp.where(plain, (code + 128) / 255, code / 127)
    return jnp.abs(scale)[..., None] * z * jnp.abs(z)
