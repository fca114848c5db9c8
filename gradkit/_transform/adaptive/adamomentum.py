"""AdaMomentum: Adam that squares the EMA instead of the gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, tree
from gradkit._core.derivative import root
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class AdaMomentumState(NamedTuple):
    """State of `scale_by_adamomentum`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # EMA of the gradient, like the parameters
    nu: Updates  # EMA of the squared mu, plus the sum of eps, like the parameters


@factory
def scale_by_adamomentum(
    b1: Hyper = 0.9, *, b2: Hyper = 0.999, eps: Hyper = 1e-8
) -> Transform:
    r"""Divide the EMA of each gradient by the RMS of that EMA.

    $$m_t = b_1 m_{t-1} + (1 - b_1) g_t, \qquad
      v_t = b_2 v_{t-1} + (1 - b_2) m_t^2 + \epsilon$$
    $$u_t = \frac{m_t / (1 - b_1^t)}{\sqrt{v_t / (1 - b_2^t)}}$$

    Args:
        b1: decay of the EMA of the gradient.
        b2: decay of the EMA of the squared EMA.
        eps: added to that EMA at every update, in units of the squared gradient;
            amounts to `eps / (1 - b2)` in the bias-corrected square.

    State: `8*size` bytes a leaf, `4` once.
    Flops: at most `24*size` a leaf.
    Paper: Wang et al., "Rethinking Adam: A Twofold Exponential Moving Average Approach",
        arXiv:2106.11514, the update of AdaMomentum.
    Departure: none known; it was not compared with the authors' code.
    Limits: the first direction is `1 / (1 - b1)` times Adam's; with the defaults, gradients
        much below `3e-3` feel `eps` and are damped.

    >>> tx = gk.scale_by_adamomentum(b1=0.5, eps=0.0)  # the first EMA is half a gradient
    >>> u, _ = tx.update(jnp.array([1e-3, -1e3]), tx.init(jnp.zeros(2)))
    >>> print(u.round(3))
    [ 2. -2.]
    """
    check.interval("scale_by_adamomentum", "[0, 1)", b1=b1, b2=b2)
    check.nonnegative("scale_by_adamomentum", eps=eps)

    def init(params: Params) -> AdaMomentumState:
        step = jnp.zeros([], jnp.int32)
        return AdaMomentumState(step, tree.zeros(params), tree.zeros(params))

    def update(
        updates: Updates, state: AdaMomentumState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, AdaMomentumState]:
        del params, extra
        g = numbers.read_squarable(updates)
        step = numbers.increment(state.count)
        mu = tree.ema(b1, state.mu, g)

        def second_moment(v: jax.Array, m: jax.Array) -> jax.Array:
            # the sum of two arrays comes last: XLA would compute `v + eps` twice
            return (b2 * v + ((1 - b2) * jnp.square(m) + eps)).astype(v.dtype)

        nu = jax.tree.map(second_moment, state.nu, mu)
        u = jax.tree.map(
            lambda m, v: tree.ratio(m, root(v)),
            tree.bias_corrected(mu, b1, step),
            tree.bias_corrected(nu, b2, step),
        )
        return numbers.like(u, updates), AdaMomentumState(step, mu, nu)

    return transform(init, update)
