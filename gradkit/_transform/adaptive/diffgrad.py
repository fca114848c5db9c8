"""diffGrad: Adam, slowed where gradients stay the same."""

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


class DiffGradState(NamedTuple):
    """State of `scale_by_diffgrad`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # EMA of the gradient, like the parameters
    nu: Updates  # EMA of the squared gradient, like the parameters
    previous: Updates  # the gradient before this one, like the parameters


@factory
def scale_by_diffgrad(
    b1: Hyper = 0.9, *, b2: Hyper = 0.999, eps: Rate = 1e-8
) -> Transform:
    r"""Scale Adam's direction by how much each gradient differs from the one before.

    $$m_t = b_1 m_{t-1} + (1 - b_1) g_t, \qquad v_t = b_2 v_{t-1} + (1 - b_2) g_t^2$$
    $$u_t = \mathrm{sigmoid}(|g_{t-1} - g_t|) \,
      \frac{m_t / (1 - b_1^t)}{\sqrt{v_t / (1 - b_2^t)} + \epsilon}, \qquad g_0 = 0$$

    Args:
        b1: decay of the EMA of the gradient.
        b2: decay of the EMA of the squared gradient.
        eps: added to the root, in units of the gradient; a number or a schedule.

    State: `12*size` bytes a leaf, `4` once.
    Flops: at most `38*size` a leaf.
    Paper: Dubey et al., "diffGrad: An Optimization Method for Convolutional Neural Networks",
        arXiv:1909.11015, the update with its friction coefficient.
    Departure: none. The authors' first version compares each gradient with itself, which is Adam
        at half its learning rate. Their corrected v2 adds `eps` before bias correction: pass the
        schedule `1e-8 / sqrt(1 - b2^t)` for it.
    Limits: the sigmoid depends on the scale of the loss: gradients much below 1 give half of
        Adam's step everywhere, much above 1 the whole.

    >>> tx = gk.scale_by_diffgrad()  # between half of Adam's step and the whole
    >>> u, _ = tx.update(jnp.array([1e-3, -1e3]), tx.init(jnp.zeros(2)))
    >>> print(u.round(3))
    [ 0.5 -1. ]
    """
    check.interval("scale_by_diffgrad", "[0, 1)", b1=b1, b2=b2)
    check.nonnegative("scale_by_diffgrad", eps=eps)

    def init(params: Params) -> DiffGradState:
        step = jnp.zeros([], jnp.int32)
        zeros = [tree.zeros(params) for _ in range(3)]
        return DiffGradState(step, *zeros)

    def update(
        updates: Updates, state: DiffGradState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, DiffGradState]:
        del params, extra
        g = numbers.like(numbers.read_squarable(updates), state.previous)
        step = numbers.increment(state.count)
        mu = tree.ema(b1, state.mu, g)
        nu = tree.ema_of_squares(b2, state.nu, g)
        floor = rate.at(eps, state.count)

        friction = jax.tree.map(
            lambda g, before: jax.nn.sigmoid(jnp.abs(before - g)), g, state.previous
        )
        u = jax.tree.map(
            lambda f, m, v: f * tree.ratio(m, root(v) + floor),
            friction,
            tree.bias_corrected(mu, b1, step),
            tree.bias_corrected(nu, b2, step),
        )
        previous = tree.after(g, friction)
        return numbers.like(u, updates), DiffGradState(step, mu, nu, previous)

    return transform(init, update)
