"""MoMo: momentum with the step to where a linear model of the loss meets its lower bound."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, rate, report, tree
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


class MoMoState(NamedTuple):
    """State of `step_by_momo`."""

    count: jax.Array  # updates so far, int32 []
    loss: jax.Array  # EMA of the loss, []
    product: jax.Array  # EMA of the inner product of gradient and parameters, []
    mu: Updates  # EMA of the gradient, like the parameters


@factory
def step_by_momo(
    learning_rate: Rate = 1.0,
    *,
    decay: Hyper = 0.9,
    lower_bound: Hyper = 0.0,
    weight_decay: Hyper = 0.0,
) -> Transform:
    r"""Step along momentum to the least point of an average of linear models of the loss.

    $$d_t = b\, d_{t-1} + (1 - b)\, g_t, \quad
      \bar f_t = b \bar f_{t-1} + (1 - b)\, \mathrm{value}_t, \quad
      \gamma_t = b \gamma_{t-1} + (1 - b) \langle g_t, p_{t-1} \rangle$$
    $$\tau_t = \min\left(\eta, \; \frac{\max(q\, (\bar f_t - \mathrm{lower\_bound} - \gamma_t) +
      \langle d_t, p_{t-1} \rangle, 0)}{\lVert d_t \rVert^2}\right), \qquad
      q = 1 + \eta \, \mathrm{weight\_decay}$$
    $$p_t = (p_{t-1} - \tau_t d_t) / q$$

    where $\eta$ is `learning_rate`, and $b$ is `decay`, but 0 at the first update.

    Args:
        learning_rate: the longest step, as a multiple of the momentum; a number or a schedule.
        decay: of all three EMAs.
        lower_bound: a number that the loss does not fall below, of either sign.
        weight_decay: strength of the penalty `weight_decay / 2 * norm^2`, which is not part of
            the loss.

    Needs: params, and `value`, the loss of the batch of the gradient.
    State: `4*size` bytes a leaf, `12` once.
    Flops: at most `28*size + 64` a leaf, `100` once.
    Paper: Schaipp, Ohana, Eickenberg, Defazio and Gower, "MoMo: Momentum Models for Adaptive
        Learning Rates", arXiv:2305.07583, Algorithm 1.
    Departure: without the online estimate of the lower bound. A non-finite entry of a gradient
        counts as zero, and a loss that is not finite as the average so far.
    Limits: a lower bound far below the least loss makes every step `learning_rate`, which is SGD
        with momentum; one above it stops the run. In groups of `optax.partition` products and
        norms are those of the group.

    >>> tx, p = gk.step_by_momo(decay=0.0), jnp.array([3.0, 1.0])
    >>> u, _ = tx.update(jnp.array([2.0, 0.0]), tx.init(p), p, value=jnp.float32(3.0))
    >>> print(p + u)  # there the loss is 0, if it is linear
    [1.5 1. ]
    """
    name = "step_by_momo"
    check.nonnegative(name, learning_rate=learning_rate, weight_decay=weight_decay)
    check.above(name, -math.inf, lower_bound=lower_bound)
    check.interval(name, "[0, 1)", decay=decay)

    def init(params: Params) -> MoMoState:
        zero = lambda: jnp.sum(tree.zero_per_leaf(params))
        count = jnp.zeros([], jnp.int32)
        return MoMoState(count, zero(), zero(), tree.zeros(params))

    def update(
        updates: Updates,
        state: MoMoState,
        params: Params = None,
        *,
        value: jax.Array | None = None,
        **extra: Extra,
    ) -> tuple[Updates, MoMoState]:
        del extra
        check.given(name, params)
        check.loss(name, value)
        g = numbers.like(numbers.read(updates), state.mu)
        p = numbers.like(params, state.mu)
        first = state.count == 0
        loss = jnp.asarray(value).astype(state.loss.dtype)
        loss = jnp.where(jnp.isfinite(loss), loss, state.loss)
        kept = jnp.where(first, 0, decay).astype(loss.dtype)
        mean = tree.ema(kept, state.loss, loss)
        product = tree.ema(kept, state.product, tree.dot(g, p))
        mu = tree.ema(kept, state.mu, g)

        longest = rate.at(learning_rate, state.count)
        shrink = longest * weight_decay
        change = jnp.where(first, 0, tree.dot(mu, p) - product)
        above = (1 + shrink) * (mean - lower_bound) - shrink * product + change
        norm = norms.of_tree(mu)
        per_norm = numbers.inverse(norm)
        length = jnp.minimum(longest * norm, jnp.maximum(above, 0) * per_norm)
        report.number("learning_rate", length * per_norm)

        def move(d: jax.Array, p: jax.Array) -> jax.Array:
            u = length * (d * per_norm) + shrink * p
            return (-u / (1 + shrink)).astype(p.dtype)

        u = numbers.like(jax.tree.map(move, mu, p), updates)
        return u, MoMoState(numbers.increment(state.count), mean, product, mu)

    return transform(init, update)
