"""Quantization to int8: code `127 * sign(x) * sqrt(|x| / scale)`, with the absmax scale of a block.

A block without negative numbers, of squares, is coded as floating numbers of 4 bits of exponent and 4
of mantissa, from `scale` down, and zero: a square is divided by, so that errors are relative to it.
The sign bit of the scale marks such a block. Both round up with the probability, over dithers, that
keeps the mean.
"""

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core.codec import dither
from gradkit._core.codec.blocks import in_units

DROPPED = np.uint32(23 - 4)  # bits of a float32 mantissa that codes do not have
ONE = np.float32(1).view(np.uint32) >> DROPPED  # the float code of 1
NEAR = np.uint32(4)  # units in the last place: closer numbers are codes


def encode(x: jax.Array, bits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Encode blocks `[..., block]` as int8 codes of this shape and scales `[...]`.

    `bits`, of the same shape, are those of `dither`.
    """
    scale, ratio = in_units(x)
    positive = (jnp.min(ratio, -1) >= 0) & (scale > 0)
    code = jnp.where(positive[..., None], _float(ratio, bits), _root(ratio, bits))
    return code.astype(jnp.int8), jnp.where(positive, -scale, scale)


def decode(code: jax.Array, scale: jax.Array) -> jax.Array:
    """Decode codes `[..., block]` to numbers in the dtype of the scales `[...]`."""
    root = code.astype(scale.dtype) / 127
    floating = _of_float(code).astype(scale.dtype)
    ratio = jnp.where((scale < 0)[..., None], floating, root * jnp.abs(root))
    return jnp.abs(scale)[..., None] * ratio


def _root(ratio: jax.Array, bits: jax.Array) -> jax.Array:
    """-127 to 127 for ratios -1 to 1."""
    square = 127**2 * jnp.abs(ratio)
    low = jnp.floor(jnp.sqrt(square))
    above = square - low * low > dither.fraction(bits, ratio.dtype) * (2 * low + 1)
    size = (low + above.astype(low.dtype)).astype(np.int32)
    return jnp.where(ratio < 0, -size, size)


def _float(ratio: jax.Array, bits: jax.Array) -> jax.Array:
    """-127 to 127 for ratios above 0 up to 1, and -128 for 0."""
    word = jax.lax.bitcast_convert_type(ratio.astype(np.float32), np.uint32)
    added = jnp.clip(~bits >> (32 - DROPPED), NEAR, (1 << DROPPED) - 1 - NEAR)
    code = ((word + added) >> DROPPED).astype(np.int32) - (ONE.astype(np.int32) - 127)
    return jnp.where(ratio > 0, jnp.maximum(code, -127), -128)


def _of_float(code: jax.Array) -> jax.Array:
    """The ratio, float32, that a code of `_float` stands for."""
    word = (code.astype(np.int32) + (ONE.astype(np.int32) - 127)) << DROPPED.astype(
        np.int32
    )
    ratio = jax.lax.bitcast_convert_type(word, np.float32)
    return jnp.where(code == -128, 0, ratio)
