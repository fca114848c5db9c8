"""Adam-atan2: Adam without `eps`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, tree
from gradkit._core.derivative import angle
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class AdamAtan2State(NamedTuple):
    """State of `scale_by_adam_atan2`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # EMA of the gradient, like the parameters
    root: Updates  # root of the EMA of the squared gradient, like the parameters


@factory
def scale_by_adam_atan2(
    b1: Hyper = 0.9, *, b2: Hyper = 0.99, a: Hyper = 1.27, b: Hyper = 1.0
) -> Transform:
    r"""Replace each gradient by the angle between its EMA and its RMS.

    $$m_t = b_1 m_{t-1} + (1 - b_1) g_t, \qquad v_t = b_2 v_{t-1} + (1 - b_2) g_t^2$$
    $$u_t = a \, \mathrm{atan2}\left(\frac{m_t}{1 - b_1^t}, \;
      b \sqrt{\frac{v_t}{1 - b_2^t}}\right)$$

    Args:
        b1: decay of the EMA of the gradient.
        b2: decay of the EMA of the squared gradient.
        a: length of a direction per radian; near `4 / pi`, a steady gradient gives 1.
        b: the ratio of EMA to RMS at which the angle is 45 degrees.

    State: `8*size` bytes a leaf, `4` once.
    Flops: at most `68*size` a leaf.
    Paper: Everett et al., "Scaling Exponents Across Parameterizations and Optimizers",
        arXiv:2407.05872, the section on Adam-atan2.
    Departure: `b2`, `a` and `b` are those of the adam-atan2-pytorch package; the paper leaves
        them open. The state keeps the root of `v`, so that the scale of a gradient cancels
        exactly, also where its square would overflow or underflow.
    Limits: no entry exceeds `a * pi / 2`; a gradient of pure noise is not damped by any `eps`.

    >>> tx = gk.scale_by_adam_atan2(a=1.0)  # the size of the gradient does not matter
    >>> u, _ = tx.update(jnp.array([1e-30, -1e25, 0.0]), tx.init(jnp.zeros(3)))
    >>> print((u / jnp.pi).round(3))
    [ 0.25 -0.25  0.  ]
    """
    check.interval("scale_by_adam_atan2", "[0, 1)", b1=b1, b2=b2)
    check.positive("scale_by_adam_atan2", a=a, b=b)

    def init(params: Params) -> AdamAtan2State:
        step = jnp.zeros([], jnp.int32)
        return AdamAtan2State(step, tree.zeros(params), tree.zeros(params))

    def update(
        updates: Updates, state: AdamAtan2State, params: Params = None, **extra: Extra
    ) -> tuple[Updates, AdamAtan2State]:
        del params, extra
        g = numbers.read(updates)
        step = numbers.increment(state.count)
        mu = tree.ema(b1, state.mu, g)
        root = tree.ema_rms(b2, state.root, g)

        m, r = (
            tree.bias_corrected(mu, b1, step),
            tree.bias_corrected_rms(root, b2, step),
        )
        u = jax.tree.map(lambda m, r: a * angle(m, b * r), m, r)
        return numbers.like(u, updates), AdamAtan2State(step, mu, root)

    return transform(init, update)
