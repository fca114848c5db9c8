"""Adan: Nesterov's momentum in an adaptive method, by way of gradient differences."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, tree
from gradkit._core.derivative import root
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class AdanState(NamedTuple):
    """State of `scale_by_adan`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # EMA of the gradient, like the parameters
    slope: Updates  # EMA of the difference of successive gradients, like the parameters
    nu: Updates  # EMA of the squared look-ahead gradient, like the parameters
    previous: Updates  # the gradient before this one, like the parameters


@factory
def scale_by_adan(
    b1: Hyper = 0.98, *, b2: Hyper = 0.92, b3: Hyper = 0.99, eps: Hyper = 1e-8
) -> Transform:
    r"""Take EMAs of each gradient and its change, and divide by the RMS of the look-ahead gradient.

    $$\delta_t = g_t - g_{t-1}, \quad \delta_1 = 0, \qquad
      m_t = b_1 m_{t-1} + (1 - b_1) g_t, \qquad d_t = b_2 d_{t-1} + (1 - b_2) \delta_t$$
    $$v_t = b_3 v_{t-1} + (1 - b_3) (g_t + b_2 \delta_t)^2, \qquad
      u_t = \frac{m_t / (1 - b_1^t) + b_2 \, d_t / (1 - b_2^t)}
        {\sqrt{v_t / (1 - b_3^t)} + \epsilon}$$

    Args:
        b1: decay of the EMA of the gradient.
        b2: decay of the EMA of the difference, and its weight in the look-ahead gradient.
        b3: decay of the EMA of the squared look-ahead gradient.
        eps: added to the root, in units of the gradient.

    State: `16*size` bytes a leaf, `4` once.
    Flops: at most `40*size` a leaf.
    Paper: Xie, Zhou, Li, Lin and Yan, "Adan: Adaptive Nesterov Momentum Algorithm for Faster
        Optimizing Deep Models", arXiv:2208.06677, Algorithm 1.
    Departure: bias-corrected, with decays that are one minus the paper's, as in the authors'
        code. optax has the same `b2`, but multiplies the differences by `1 - b2` in place of
        `b2`.
    Limits: four times the parameters' memory; differences of noisy gradients are noise.

    >>> tx = gk.scale_by_adan(eps=0.0)  # a steady gradient has no differences: Adam
    >>> u, _ = tx.update(jnp.array([1e-3, -1e3]), tx.init(jnp.zeros(2)))
    >>> print(u.round(3))
    [ 1. -1.]
    """
    check.interval("scale_by_adan", "[0, 1)", b1=b1, b2=b2, b3=b3)
    check.nonnegative("scale_by_adan", eps=eps)

    def init(params: Params) -> AdanState:
        step = jnp.zeros([], jnp.int32)
        zeros = [tree.zeros(params) for _ in range(4)]
        return AdanState(step, *zeros)

    def update(
        updates: Updates, state: AdanState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, AdanState]:
        del params, extra
        g = numbers.like(numbers.read_squarable(updates), state.previous)
        step = numbers.increment(state.count)
        delta = jax.tree.map(
            lambda g, before: jnp.where(step == 1, 0, g - before), g, state.previous
        )
        ahead = jax.tree.map(lambda g, d: (g + b2 * d).astype(g.dtype), g, delta)
        mu = tree.ema(b1, state.mu, g)
        slope = tree.ema(b2, state.slope, delta)
        nu = tree.ema_of_squares(b3, state.nu, numbers.read_squarable(ahead))

        u = jax.tree.map(
            lambda m, d, v: tree.ratio(m + b2 * d, root(v) + eps),
            tree.bias_corrected(mu, b1, step),
            tree.bias_corrected(slope, b2, step),
            tree.bias_corrected(nu, b3, step),
        )
        previous = tree.after(g, slope, nu)
        return numbers.like(u, updates), AdanState(step, mu, slope, nu, previous)

    return transform(init, update)
