"""Complex momentum: a decayed sum of gradients that turns as it decays."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class ComplexState(NamedTuple):
    """State of `average_by_complex`."""

    real: Updates  # real part of the sum, like the parameters
    imaginary: Updates  # imaginary part of the sum, like the parameters


@factory
def average_by_complex(decay: Hyper = 0.8, *, angle: Hyper = math.pi / 8) -> Transform:
    r"""Replace each gradient by the real part of a sum whose older terms are turned.

    $$m_t = g_t + \mathrm{decay} \, e^{i \, \mathrm{angle}} \, m_{t-1}, \qquad
      u_t = \mathrm{Re}(m_t)$$

    So a gradient of `k` updates ago counts `decay^k cos(k * angle)`. This becomes negative, which
    damps the rotation of players around each other.

    Args:
        decay: fraction of the sum that is kept at the next update.
        angle: how far the sum turns in an update, in radians; 0 is the heavy ball.

    State: `8*size` bytes a leaf, `0` once.
    Flops: at most `12*size` a leaf, `8` once.
    Paper: Lorraine, Acuna, Vicol and Duvenaud, "Complex Momentum for Optimization in Games",
        arXiv:2102.08431, the simultaneous updates of Algorithm 1.
    Departure: sign and learning rate are left to the step. `decay` and `angle` are of the size
        the paper finds to work for many games; it names no default.
    Limits: for games; for one player's minimum, `average_by_heavy_ball` is cheaper.

    >>> tx, zero = gk.average_by_complex(0.5, angle=jnp.pi / 2), jnp.float32(0.0)
    >>> _, state = tx.update(jnp.float32(4.0), tx.init(zero))
    >>> u, state = tx.update(zero, state)
    >>> print(u.round(3), tx.update(zero, state)[0].round(3))  # i, then i^2
    -0.0 -1.0
    """
    check.interval("average_by_complex", "[0, 1)", decay=decay)
    check.nonnegative("average_by_complex", angle=angle)

    def init(params: Params) -> ComplexState:
        return ComplexState(tree.zeros(params), tree.zeros(params))

    def update(
        updates: Updates, state: ComplexState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, ComplexState]:
        del params, extra
        g = numbers.like(numbers.read(updates), state.real)
        cos, sin = decay * jnp.cos(angle), decay * jnp.sin(angle)

        def real_part(g: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
            return (g + (cos * x - sin * y)).astype(g.dtype)

        def imaginary_part(x: jax.Array, y: jax.Array) -> jax.Array:
            return (sin * x + cos * y).astype(x.dtype)

        real = jax.tree.map(real_part, g, state.real, state.imaginary)
        imaginary = jax.tree.map(imaginary_part, state.real, state.imaginary)
        return numbers.like(real, updates), ComplexState(real, imaginary)

    return transform(init, update)
