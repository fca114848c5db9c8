"""Polyak's momentum: the decayed sum of the gradients."""

from typing import NamedTuple

import jax

from gradkit._core import check, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class HeavyBallState(NamedTuple):
    """State of `average_by_heavy_ball`."""

    mu: Updates  # decayed sum of gradients, like the parameters


@factory
def average_by_heavy_ball(decay: Hyper = 0.9) -> Transform:
    r"""Replace each gradient by the sum of all so far, older ones counting less.

    $$m_t = g_t + \mathrm{decay} \, m_{t-1}, \qquad u_t = m_t$$

    `average_by_nesterov` keeps the same sum and looks one gradient further ahead. An
    EMA, such as Adam's, is `1 - decay` times this sum.

    Args:
        decay: fraction of the sum that is kept at the next update; 0 is the gradient itself.

    State: `4*size` bytes a leaf, `0` once.
    Flops: at most `6*size` a leaf.
    Paper: Polyak, "Some methods of speeding up the convergence of iteration methods",
        doi:10.1016/0041-5553(64)90137-5, the heavy ball.
    Departure: the learning rate multiplies the sum, as in torch and optax. Polyak's multiplies
        each gradient as it enters; the same while the learning rate is constant.
    Limits: a steady gradient is enlarged by `1 / (1 - decay)`; lower the learning rate by it.

    >>> tx = gk.average_by_heavy_ball(0.5)  # a single gradient counts half as much at each update
    >>> u, state = tx.update(jnp.float32(2.0), tx.init(jnp.float32(0.0)))
    >>> float(u), float(tx.update(jnp.float32(0.0), state)[0])
    (2.0, 1.0)
    """
    check.interval("average_by_heavy_ball", "[0, 1)", decay=decay)

    def init(params: Params) -> HeavyBallState:
        return HeavyBallState(tree.zeros(params))

    def update(
        updates: Updates, state: HeavyBallState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, HeavyBallState]:
        del params, extra

        def add(m: jax.Array, g: jax.Array) -> jax.Array:
            return (g.astype(m.dtype) + decay * m).astype(m.dtype)

        mu = jax.tree.map(add, state.mu, numbers.read(updates))
        return numbers.like(mu, updates), HeavyBallState(mu)

    return transform(init, update)
