"""Stable-SPAM's AdaGN: Adam for the norm of every tensor."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class GradientNormState(NamedTuple):
    """State of `scale_by_gradient_norm`."""

    count: jax.Array  # updates so far, int32 []
    mu: jax.Array  # EMA of the norm of every leaf, [leaves]
    root_nu: jax.Array  # root of the EMA of the squared norm of every leaf, [leaves]


@factory
def scale_by_gradient_norm(
    b1: Hyper = 0.7, *, b2: Hyper = 0.9, eps: Hyper = 1e-8
) -> Transform:
    r"""Give the gradient of each leaf the norm that Adam would make of its norms.

    $$n_{t,i} = \lVert g_{t,i} \rVert, \qquad
      m_{t,i} = b_1 m_{t-1,i} + (1 - b_1) \, n_{t,i}, \qquad
      v_{t,i} = b_2 v_{t-1,i} + (1 - b_2) \, n_{t,i}^2$$
    $$u_{t,i} = \frac{g_{t,i}}{n_{t,i}} \cdot
      \frac{m_{t,i} / (1 - b_1^t)}{\sqrt{v_{t,i} / (1 - b_2^t)} + \epsilon}$$

    Args:
        b1: decay of the EMA of the norm.
        b2: decay of the EMA of the squared norm.
        eps: added to the RMS of the norm, in units of the gradient.

    State: `8` bytes a leaf, `4` once.
    Flops: at most `15*size + 80` a leaf, `20` once.
    Paper: Huang et al., "Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam",
        arXiv:2502.17055, Algorithm 1, its AdaGN.
    Departure: a zero gradient stays zero. The state keeps the root of `v`. The authors' code also
        has a cosine schedule on `b1`, and resets these EMAs when it resets Adam's; this does
        neither.
    Limits: gradients are near unit norm, however small the loss makes them. Stands after
        `clip_by_spike` and before Adam.

    >>> tx = gk.scale_by_gradient_norm()  # the first norm is its own EMA
    >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))[0].round(3))
    [0.6 0.8]
    """
    check.interval("scale_by_gradient_norm", "[0, 1)", b1=b1, b2=b2)
    check.nonnegative("scale_by_gradient_norm", eps=eps)

    def init(params: Params) -> GradientNormState:
        step = jnp.zeros([], jnp.int32)
        zero = tree.zero_per_leaf
        return GradientNormState(step, zero(params), zero(params))

    def update(
        updates: Updates,
        state: GradientNormState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, GradientNormState]:
        del params, extra
        g = numbers.read(updates)
        n = norms.of_leaves(updates).astype(state.mu.dtype)
        step = numbers.increment(state.count)
        mu = tree.ema(b1, state.mu, n)
        root_nu = tree.ema_rms(b2, state.root_nu, n)
        root = tree.bias_corrected_rms(root_nu, b2, step)
        length = tree.ratio(tree.bias_corrected(mu, b1, step), root + eps).astype(
            n.dtype
        )
        unit = tree.scale_each(numbers.inverse(n), g)
        u = tree.scale_each(length, unit)
        return numbers.like(u, updates), GradientNormState(step, mu, root_nu)

    return transform(init, update)
