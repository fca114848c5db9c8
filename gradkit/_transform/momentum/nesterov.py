"""Nesterov's momentum: the decayed sum of the gradients, one gradient ahead."""

from typing import NamedTuple

import jax

from gradkit._core import check, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class NesterovState(NamedTuple):
    """State of `average_by_nesterov`."""

    mu: Updates  # decayed sum of gradients, like the parameters


@factory
def average_by_nesterov(decay: Hyper = 0.9) -> Transform:
    r"""Replace each gradient by itself plus the decayed sum of all so far, itself included.

    $$m_t = g_t + \mathrm{decay} \, m_{t-1}, \qquad u_t = g_t + \mathrm{decay} \, m_t$$

    `average_by_heavy_ball` keeps the same sum and emits it as it is: here the newest gradient
    counts `1 + decay` times. An EMA is `1 - decay` times the sum.

    Args:
        decay: fraction of the sum that is kept at the next update; 0 is the gradient itself.

    State: `4*size` bytes a leaf, `0` once.
    Flops: at most `8*size` a leaf.
    Paper: Bengio, Boulanger-Lewandowski and Pascanu, "Advances in Optimizing Recurrent
        Networks", arXiv:1212.0901, its simplified Nesterov momentum, after Nesterov (1983) and
        Sutskever et al. (2013).
    Departure: the learning rate multiplies the sum, as in torch and optax. The paper's
        multiplies each gradient as it enters; the same while the learning rate is constant.
    Limits: parameters are the look-ahead points, where gradients are taken; Nesterov's own
        sequence lies `decay` velocities behind. A steady gradient is enlarged by `1 / (1 - decay)`.

    >>> tx = gk.average_by_nesterov(0.5)  # the newest gradient counts 1 + decay times
    >>> u, state = tx.update(jnp.float32(2.0), tx.init(jnp.float32(0.0)))
    >>> float(u), float(tx.update(jnp.float32(0.0), state)[0])
    (3.0, 0.5)
    """
    check.interval("average_by_nesterov", "[0, 1)", decay=decay)

    def init(params: Params) -> NesterovState:
        return NesterovState(tree.zeros(params))

    def update(
        updates: Updates, state: NesterovState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, NesterovState]:
        del params, extra
        g = numbers.read(updates)

        def add(m: jax.Array, g: jax.Array) -> jax.Array:
            return (g.astype(m.dtype) + decay * m).astype(m.dtype)

        mu = jax.tree.map(add, state.mu, g)
        u = jax.tree.map(add, mu, g)
        return numbers.like(u, updates), NesterovState(mu)

    return transform(init, update)
