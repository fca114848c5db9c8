"""AdaBound: Adam's step sizes, bounded ever closer to SGD's."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, tree
from gradkit._core.derivative import root
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class AdaBoundState(NamedTuple):
    """State of `scale_by_adabound`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # EMA of the gradient, like the parameters
    nu: Updates  # EMA of the squared gradient, like the parameters


@factory
def scale_by_adabound(
    b1: Hyper = 0.9,
    *,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    final_ratio: Hyper = 100.0,
    gamma: Hyper = 1e-3,
) -> Transform:
    r"""Multiply the EMA of the gradient by Adam's step sizes, clipped to a narrowing band.

    $$m_t = b_1 m_{t-1} + (1 - b_1) g_t, \qquad v_t = b_2 v_{t-1} + (1 - b_2) g_t^2$$
    $$u_t = m_t \, \mathrm{clip}\left(\frac{\sqrt{1 - b_2^t} / (1 - b_1^t)}
      {\sqrt{v_t} + \epsilon}, \;
      \mathrm{final\_ratio} \left(1 - \frac{1}{\gamma t + 1}\right), \;
      \mathrm{final\_ratio} \left(1 + \frac{1}{\gamma t}\right)\right)$$

    Args:
        b1: decay of the EMA of the gradient.
        b2: decay of the EMA of the squared gradient.
        eps: added to the root before bias correction, in units of the gradient.
        final_ratio: the step size of SGD at the end, as a multiple of the learning rate:
            `final_lr / lr` in the authors' code.
        gamma: speed of the narrowing, an inverse number of updates.

    State: `8*size` bytes a leaf, `4` once.
    Flops: at most `24*size` a leaf.
    Paper: Luo, Xiong, Liu and Sun, "Adaptive Gradient Methods with Dynamic Bound of Learning
        Rate", arXiv:1902.09843, Algorithm 2.
    Departure: as in the authors' code, step sizes are bias-corrected before they are bounded,
        `eps` is added, and there is no division by `sqrt(t)`. `gamma` replaces the paper's
        `1 - b2` in the bounds. The bounds are multiples of the learning rate, so a schedule moves
        them, as in that code.
    Limits: in the end it is SGD with step `final_ratio * learning_rate`, which must suit the
        problem.

    >>> tx = gk.scale_by_adabound(gamma=1e9)  # no band left: SGD on the EMA of the gradient
    >>> u, _ = tx.update(jnp.array([1.0, -2.0]), tx.init(jnp.zeros(2)))
    >>> print(u.round(3))
    [ 10. -20.]
    """
    check.interval("scale_by_adabound", "[0, 1)", b1=b1, b2=b2)
    check.nonnegative("scale_by_adabound", eps=eps)
    check.positive("scale_by_adabound", final_ratio=final_ratio, gamma=gamma)

    def init(params: Params) -> AdaBoundState:
        step = jnp.zeros([], jnp.int32)
        return AdaBoundState(step, tree.zeros(params), tree.zeros(params))

    def update(
        updates: Updates, state: AdaBoundState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, AdaBoundState]:
        del params, extra
        g = numbers.read_squarable(updates)
        step = numbers.increment(state.count)
        mu = tree.ema(b1, state.mu, g)
        nu = tree.ema_of_squares(b2, state.nu, g)

        def direction(m: jax.Array, v: jax.Array) -> jax.Array:
            correction1 = numbers.one_minus_power(b1, step, v.dtype)
            correction2 = numbers.one_minus_power(b2, step, v.dtype)
            size = jnp.sqrt(correction2) / correction1 / (root(v) + eps)
            x = gamma * step.astype(v.dtype)
            low, high = final_ratio * x / (x + 1), final_ratio * (1 + 1 / x)
            return m * jnp.clip(size, low, high)

        u = jax.tree.map(direction, mu, nu)
        return numbers.like(u, updates), AdaBoundState(step, mu, nu)

    return transform(init, update)
