"""Numbers of a narrow dtype, such as bfloat16, found and kept in a wider one.

They are computed, not cast: XLA may leave out a cast that is cast back, as excess precision.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import shard

WORDS = {4: np.uint32, 8: np.uint64}  # of the bits of a number of so many bytes


def spacing(x: jax.Array, dtype: Any) -> jax.Array:
    """How far apart numbers of `dtype` are, away from zero, where `x` is: a power of two.

    At least the smallest normal number of `x`'s dtype, below which XLA may take numbers for zero.
    """
    narrow, own = jnp.finfo(dtype), jnp.finfo(x.dtype)
    word = WORDS[x.dtype.itemsize]
    exponent = np.array(np.inf, x.dtype).view(word)  # its bits alone
    bits = jax.lax.bitcast_convert_type(x, word)
    power = jax.lax.bitcast_convert_type(bits & exponent, x.dtype)  # 2^floor(log2 |x|)
    eps = float(narrow.eps)
    return eps * jnp.maximum(power, max(float(narrow.tiny), float(own.tiny) / eps))


def nearest(x: jax.Array, dtype: Any) -> jax.Array:
    """The number of `dtype` nearest to `x`, the even one of two, in `x`'s dtype.

    Beyond the largest this is the largest. Its derivative is that of `x`.
    """
    x = saturated(x, dtype)
    s = spacing(x, dtype)
    return _straight_through(x, jnp.round(x / s) * s)


def stochastic(key: jax.Array, x: jax.Array, dtype: Any) -> jax.Array:
    """One of the two numbers of `dtype` around `x`, each as likely as `x` is near to it.

    So its mean is `x`. Beyond the largest this is the largest. Its derivative is that of `x`.
    """
    x = saturated(x, dtype)
    s = spacing(x, dtype)
    low = jnp.floor(x / s)
    bits = jax.random.bits(key, x.shape, np.uint32)
    drawn = shard.alike((bits >> np.uint32(8)).astype(x.dtype), x) * 2.0**-24
    up = (drawn < x / s - low).astype(x.dtype)
    return _straight_through(x, (low + up) * s)


def saturated(x: jax.Array, dtype: Any) -> jax.Array:
    """`x`, no larger than the largest number of `dtype`."""
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
    """What rounding `x` to `q`, a number of `dtype`, has left, as int8: 127 is half a `spacing`."""
    code = jnp.round((x - q) / spacing(q, dtype) * 254)
    return jnp.clip(code, -127, 127).astype(jnp.int8)


def residual(code: jax.Array, q: jax.Array, dtype: Any) -> jax.Array:
    """What `residual_code` stands for, within a fifth of a percent of a `spacing`."""
    return code.astype(q.dtype) / 254 * spacing(q, dtype)
