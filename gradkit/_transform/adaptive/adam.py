"""Adam: the EMA of the gradient over its RMS."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, rate, tree
from gradkit._core.derivative import root
from gradkit._core.factory import factory
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Rate,
    Transform,
    Updates,
    transform,
)


class AdamState(NamedTuple):
    """State of `scale_by_adam`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # EMA of the gradient, like the parameters
    nu: Updates  # EMA of the squared gradient, like the parameters


@factory
def scale_by_adam(b1: Hyper = 0.9, *, b2: Hyper = 0.999, eps: Rate = 1e-8) -> Transform:
    r"""Divide the EMA of each gradient by the root of the EMA of its square.

    $$m_t = b_1 m_{t-1} + (1 - b_1) g_t, \quad v_t = b_2 v_{t-1} + (1 - b_2) g_t^2$$
    $$u_t = \frac{m_t / (1 - b_1^t)}{\sqrt{v_t / (1 - b_2^t)} + \epsilon}$$

    Args:
        b1: decay of the EMA of the gradient.
        b2: decay of the EMA of the squared gradient.
        eps: added to the root, in units of the gradient; a number or a schedule, such as the
            `1e-8 / sqrt(1 - b2^t)` of implementations that add it before bias correction.

    State: `8*size` bytes a leaf, `4` once.
    Flops: at most `24*size` a leaf.
    Paper: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980,
        Algorithm 1.
    Departure: none, but that a non-finite entry of a gradient counts as zero, and so does 0/0.
    Limits: where gradients are as small as `eps` the step shrinks with them.

    >>> tx = gk.scale_by_adam(eps=1e-30)  # the size of the gradient does not matter
    >>> u, _ = tx.update(jnp.array([1e-3, -1e3]), tx.init(jnp.zeros(2)))
    >>> u.round(3).tolist()
    [1.0, -1.0]
    """
    check.interval("scale_by_adam", "[0, 1)", b1=b1, b2=b2)
    check.nonnegative("scale_by_adam", eps=eps)

    def init(params: Params) -> AdamState:
        step = jnp.zeros([], jnp.int32)
        return AdamState(step, tree.zeros(params), tree.zeros(params))

    def update(
        updates: Updates, state: AdamState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, AdamState]:
        del params, extra
        step = numbers.increment(state.count)
        bias1, bias2 = (tree.one_minus_powers(b, step, state.mu) for b in (b1, b2))
        floor = rate.at(eps, state.count)

        def leaf(m: jax.Array, v: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
            g = numbers.read_squarable(g)
            m, v = tree.ema(b1, m, g), tree.ema_of_squares(b2, v, g)
            size = root(v / bias2[v.dtype])
            return m, v, tree.over_root(m / bias1[m.dtype], size, floor)

        leaves = tree.map_by_shape(leaf, state.mu, state.nu, updates)
        mu, nu, u = tree.unzip(state.mu, leaves, 3)
        return numbers.like(u, updates), AdamState(step, mu, nu)

    return transform(init, update)
