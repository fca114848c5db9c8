"""MoMo-Adam: Adam with the step to where a linear model of the loss meets its lower bound."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, rate, report, tree
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


class MoMoAdamState(NamedTuple):
    """State of `step_by_momo_adam`."""

    count: jax.Array  # updates so far, int32 []
    loss: jax.Array  # EMA of the loss, []
    product: jax.Array  # EMA of the inner product of gradient and parameters, []
    mu: Updates  # EMA of the gradient, like the parameters
    nu: Updates  # EMA of the squared gradient, like the parameters


@factory
def step_by_momo_adam(
    learning_rate: Rate = 1e-2,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    lower_bound: Hyper = 0.0,
    weight_decay: Hyper = 0.0,
) -> Transform:
    r"""Step along Adam's direction to the least point of an average of linear models of the loss.

    $$d_t = b_1 d_{t-1} + (1 - b_1)\, g_t, \quad
      \bar f_t = b_1 \bar f_{t-1} + (1 - b_1)\, \mathrm{value}_t, \quad
      \gamma_t = b_1 \gamma_{t-1} + (1 - b_1) \langle g_t, p_{t-1} \rangle$$
    $$v_t = b_2 v_{t-1} + (1 - b_2)\, g_t^2, \qquad
      D_t = \sqrt{v_t / (1 - b_2^t)} + \epsilon, \qquad \rho_t = 1 - b_1^t$$
    $$\tau_t = \min\left(\frac{\eta}{\rho_t}, \; \frac{\max(q\, (\bar f_t -
      \rho_t \mathrm{lower\_bound} - \gamma_t) + \langle d_t, p_{t-1} \rangle, 0)}
      {\langle d_t, D_t^{-1} d_t \rangle}\right), \qquad q = 1 + \eta \, \mathrm{weight\_decay}$$
    $$p_t = (p_{t-1} - \tau_t D_t^{-1} d_t) / q$$

    where $\eta$ is `learning_rate`.

    Args:
        learning_rate: the longest step, as a multiple of Adam's direction; a number or a
            schedule.
        b1: decay of the EMAs of the gradient, the loss and the product.
        lower_bound: a number that the loss does not fall below, of either sign.
        weight_decay: strength of the penalty `weight_decay / 2 * norm^2`, the norm that of
            parameters times `sqrt(D)`; it is not part of the loss.
        b2, eps: see the glossary.

    Needs: params, and `value`, the loss of the batch of the gradient.
    State: `8*size` bytes a leaf, `12` once.
    Flops: at most `48*size + 64` a leaf, `150` once.
    Paper: Schaipp, Ohana, Eickenberg, Defazio and Gower, "MoMo: Momentum Models for Adaptive
        Learning Rates", arXiv:2305.07583, Algorithm 2.
    Departure: without the online estimate of the lower bound. A non-finite entry of a gradient
        counts as zero, and a loss that is not finite as the bias-corrected average so far.
    Limits: a lower bound far below the least loss makes every step `learning_rate`, which is Adam;
        one above it stops the run. Entries of a gradient above 9e18 in float32, whose squares would
        not stay finite, count as that. In groups of `optax.partition` products and norms are those
        of the group.

    >>> tx, p = gk.step_by_momo_adam(9.0, b1=0.5, b2=0.5), jnp.array([3.0, 1.0])
    >>> u, _ = tx.update(jnp.array([2.0, 0.0]), tx.init(p), p, value=jnp.float32(3.0))
    >>> print(p + u)  # there the loss is 0, if it is linear
    [1.5 1. ]
    """
    name = "step_by_momo_adam"
    check.nonnegative(
        name, learning_rate=learning_rate, eps=eps, weight_decay=weight_decay
    )
    check.above(name, -math.inf, lower_bound=lower_bound)
    check.interval(name, "[0, 1)", b1=b1, b2=b2)

    def init(params: Params) -> MoMoAdamState:
        zero = lambda: jnp.sum(tree.zero_per_leaf(params))
        count = jnp.zeros([], jnp.int32)
        zeros = [tree.zeros(params) for _ in range(2)]
        return MoMoAdamState(count, zero(), zero(), *zeros)

    def update(
        updates: Updates,
        state: MoMoAdamState,
        params: Params = None,
        *,
        value: jax.Array | None = None,
        **extra: Extra,
    ) -> tuple[Updates, MoMoAdamState]:
        del extra
        check.given(name, params)
        check.loss(name, value)
        g = numbers.like(numbers.read_squarable(updates), state.mu)
        p = numbers.like(params, state.mu)
        first, count = state.count == 0, numbers.increment(state.count)
        loss = jnp.asarray(value).astype(state.loss.dtype)
        weight = numbers.one_minus_power(b1, count, loss.dtype)
        before = numbers.one_minus_power(b1, state.count, loss.dtype)
        so_far = state.loss / jnp.where(first, 1, before)
        loss = jnp.where(jnp.isfinite(loss), loss, so_far)
        mean = tree.ema(b1, state.loss, loss)
        product = tree.ema(b1, state.product, tree.dot(g, p))
        mu, nu = tree.ema(b1, state.mu, g), tree.ema_of_squares(b2, state.nu, g)

        def scaled(d: jax.Array, v: jax.Array) -> jax.Array:
            return tree.over_root(d, root(v), eps)

        direction = jax.tree.map(scaled, mu, tree.bias_corrected(nu, b2, count))
        now = rate.at(learning_rate, state.count)
        shrink = now * weight_decay
        change = jnp.where(first, 0, tree.dot(mu, p) - product)
        above = (1 + shrink) * (mean - weight * lower_bound) - shrink * product + change
        square = tree.dot(mu, direction)
        longest = (now / weight).astype(square.dtype)
        size = longest * norms.clip_factor(longest * square, jnp.maximum(above, 0))
        report.number("learning_rate", size * weight)

        def move(d: jax.Array, p: jax.Array) -> jax.Array:
            return (-(size * d + shrink * p) / (1 + shrink)).astype(p.dtype)

        u = numbers.like(jax.tree.map(move, direction, p), updates)
        return u, MoMoAdamState(count, mean, product, mu, nu)

    return transform(init, update)
