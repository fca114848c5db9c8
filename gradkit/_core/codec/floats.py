"""Rounding to a narrow dtype, such as bfloat16, with results in the wider dtype.

Rounding is arithmetic, not a cast, as XLA may remove a cast and its inverse (excess precision).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import shard

WORDS = {4: np.uint32, 8: np.uint64}  # unsigned integers by size in bytes


def spacing(x: jax.Array, dtype: Any) -> jax.Array:
    """The gap from `|x|` to the next larger number of `dtype`, a power of two.

    At least the smallest normal number of the dtype of `x`, as XLA may flush smaller ones to zero.
    """
    narrow, wide = jnp.finfo(dtype), jnp.finfo(x.dtype)
    word = WORDS[x.dtype.itemsize]
    exponent = np.array(np.inf, x.dtype).view(word)  # its bits alone
    bits = jax.lax.bitcast_convert_type(x, word)
    power = jax.lax.bitcast_convert_type(bits & exponent, x.dtype)  # 2^floor(log2 |x|)
    eps = float(narrow.eps)
    return eps * jnp.maximum(power, max(float(narrow.tiny), float(wide.tiny) / eps))


def nearest(x: jax.Array, dtype: Any) -> jax.Array:
    """`x`, rounded to the nearest number of `dtype`, ties to even, in the dtype of `x`.

    It saturates at the largest number. The derivative is 1 (straight-through).
    """
    x = saturated(x, dtype)
    s = spacing(x, dtype)
    return _straight_through(x, jnp.round(x / s) * s)


def stochastic(key: jax.Array, x: jax.Array, dtype: Any) -> jax.Array:
    """`x`, stochastically rounded to a neighbouring number of `dtype`, so that the mean is `x`.

    It saturates at the largest number. The derivative is 1 (straight-through).
    """
    bits = jax.random.bits(key, x.shape, np.uint32)
    drawn = shard.alike((bits >> np.uint32(8)).astype(x.dtype), x) * 2.0**-24
    return dithered(drawn, x, dtype)


def dithered(uniform: jax.Array, x: jax.Array, dtype: Any) -> jax.Array:
    """`x`, rounded up where what is above the number of `dtype` below exceeds `uniform`.

    It saturates at the largest number. The derivative is 1 (straight-through).
    """
    x = saturated(x, dtype)
    s = spacing(x, dtype)
    low = jnp.floor(x / s)
    up = (uniform < x / s - low).astype(x.dtype)
    return _straight_through(x, (low + up) * s)


def saturated(x: jax.Array, dtype: Any) -> jax.Array:
    """`x`, clipped to the range of finite numbers of `dtype`."""
    most = float(jnp.finfo(dtype).max)
    return jnp.clip(x, -most, most)


@jax.custom_jvp
def _straight_through(x: jax.Array, rounded: jax.Array) -> jax.Array:
    """`rounded`, with the derivative of `x`."""
    del x
    return rounded


@_straight_through.defjvp
def _derivative_of_x(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    return primals[1], tangents[0]


def residual_code(x: jax.Array, q: jax.Array, dtype: Any) -> jax.Array:
    """The rounding error `x - q` of `q`, a number of `dtype`, as int8: 127 is half a `spacing`."""
    code = jnp.round((x - q) / spacing(q, dtype) * 254)
    return jnp.clip(code, -127, 127).astype(jnp.int8)


def residual(code: jax.Array, q: jax.Array, dtype: Any) -> jax.Array:
    """The rounding error that `residual_code` encodes, to within 0.2 % of a `spacing`."""
    return code.astype(q.dtype) / 254 * spacing(q, dtype)
