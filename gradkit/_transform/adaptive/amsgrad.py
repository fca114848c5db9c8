"""AMSGrad: Adam whose denominator never shrinks."""

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


class AMSGradState(NamedTuple):
    """State of `scale_by_amsgrad`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # EMA of the gradient, like the parameters
    nu: Updates  # EMA of the squared gradient, like the parameters
    nu_max: Updates  # the largest nu so far, like the parameters


@factory
def scale_by_amsgrad(
    b1: Hyper = 0.9, *, b2: Hyper = 0.999, eps: Rate = 1e-8
) -> Transform:
    r"""Divide the EMA of each gradient by the largest RMS it has had.

    $$m_t = b_1 m_{t-1} + (1 - b_1) g_t, \quad v_t = b_2 v_{t-1} + (1 - b_2) g_t^2, \quad
      \hat v_t = \max(\hat v_{t-1}, v_t)$$
    $$u_t = \frac{m_t / (1 - b_1^t)}{\sqrt{\hat v_t / (1 - b_2^t)} + \epsilon}$$

    Args:
        b1: decay of the EMA of the gradient.
        b2: decay of the EMA of the squared gradient.
        eps: added to the root, in units of the gradient; a number or a schedule.

    State: `12*size` bytes a leaf, `4` once.
    Flops: at most `24*size` a leaf.
    Paper: Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", arXiv:1904.09237,
        Algorithm 2.
    Departure: the paper leaves out bias correction for simplicity and has no `eps`; torch
        corrects after the maximum and adds `eps`, and so does this. The paper's own step is
        `eps=0` under a learning rate times `(1 - b1**t) / sqrt(1 - b2**t)`. optax takes the
        maximum of bias-corrected EMAs, which are noisiest in the first updates.
    Limits: one large gradient slows its entry for good.

    >>> tx = gk.scale_by_amsgrad(b1=0.0, b2=0.0)  # the largest gradient is never forgotten
    >>> _, state = tx.update(jnp.float32(4.0), tx.init(jnp.float32(0.0)))
    >>> print(tx.update(jnp.float32(1.0), state)[0].round(3))
    0.25
    """
    check.interval("scale_by_amsgrad", "[0, 1)", b1=b1, b2=b2)
    check.nonnegative("scale_by_amsgrad", eps=eps)

    def init(params: Params) -> AMSGradState:
        step = jnp.zeros([], jnp.int32)
        zeros = [tree.zeros(params) for _ in range(3)]
        return AMSGradState(step, *zeros)

    def update(
        updates: Updates, state: AMSGradState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, AMSGradState]:
        del params, extra
        g = numbers.read_squarable(updates)
        step = numbers.increment(state.count)
        mu = tree.ema(b1, state.mu, g)
        nu = tree.ema_of_squares(b2, state.nu, g)
        nu_max = jax.tree.map(jnp.maximum, state.nu_max, nu)
        floor = rate.at(eps, state.count)

        u = jax.tree.map(
            lambda m, v: tree.ratio(m, root(v) + floor),
            tree.bias_corrected(mu, b1, step),
            tree.bias_corrected(nu_max, b2, step),
        )
        return numbers.like(u, updates), AMSGradState(step, mu, nu, nu_max)

    return transform(init, update)
