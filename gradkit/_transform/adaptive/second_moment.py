"""Adam's denominator, under any numerator."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers, tree
from gradkit._core.derivative import root
from gradkit._core.factory import factory
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Hyper,
    Params,
    Transform,
    Updates,
    transform,
)


class SecondMomentState(NamedTuple):
    """State of `scale_by_second_moment`, and that of the numerator."""

    count: jax.Array  # updates so far, int32 []
    nu: Updates  # EMA of the squared gradient, like the parameters
    inner: optax.OptState


@factory
def scale_by_second_moment(
    inner: AnyTransform, *, b2: Hyper = 0.999, eps: Hyper = 1e-8
) -> Transform:
    r"""Divide the direction of `inner` by the RMS of the gradient over time.

    $$v_t = b_2 v_{t-1} + (1 - b_2) g_t^2, \qquad
      u_t = \frac{\mathrm{inner}(g_t)}{\sqrt{v_t / (1 - b_2^t)} + \epsilon}$$

    Args:
        inner: makes the numerator from the gradient, for example an EMA.
        b2: decay of the EMA of the squared gradient.
        eps: added to the root, in units of the gradient.

    Needs: what `inner` needs.
    State: `4*size` bytes a leaf, `4` once, and the state of `inner`.
    Flops: at most `16*size` a leaf, and those of `inner`.
    Paper: Kingma and Ba, "Adam: A Method for Stochastic Optimization", arXiv:1412.6980,
        the denominator of Algorithm 1.
    Departure: none; with a bias-corrected EMA as `inner` it is Adam.
    Limits: `inner` sees the gradient, not the scaled direction.

    >>> tx = gk.scale_by_second_moment(optax.identity(), b2=0.0, eps=1e-30)  # signs
    >>> u, _ = tx.update(jnp.array([3.0, -2.0]), tx.init(jnp.zeros(2)))
    >>> u.round(3).tolist()
    [1.0, -1.0]
    """
    check.interval("scale_by_second_moment", "[0, 1)", b2=b2)
    check.nonnegative("scale_by_second_moment", eps=eps)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SecondMomentState:
        step = jnp.zeros([], jnp.int32)
        return SecondMomentState(
            step, tree.zeros(params), inner.init(numbers.wide(params))
        )

    def update(
        updates: Updates,
        state: SecondMomentState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, SecondMomentState]:
        g = numbers.read_squarable(updates)
        step = numbers.increment(state.count)
        nu = tree.ema_of_squares(b2, state.nu, g)
        m, inner_state = inner.update(g, state.inner, numbers.wide(params), **extra)
        v = tree.bias_corrected(nu, b2, step)
        u = jax.tree.map(lambda m, v: tree.ratio(m, root(v) + eps), m, v)
        return numbers.like(u, updates), SecondMomentState(step, nu, inner_state)

    return transform(init, update)
