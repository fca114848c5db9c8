"""Prodigy: Adam with a learning rate that estimates the distance to the solution."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, rate, report, tree
from gradkit._core.derivative import root
from gradkit._core.factory import factory
from gradkit._core.mask import Mask, check_mask, decayed
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Rate,
    Transform,
    Updates,
    transform,
)


class ProdigyState(NamedTuple):
    """State of `step_by_prodigy`."""

    count: jax.Array  # updates so far, int32 []
    distance: jax.Array  # the estimate d, [], 0 before the first update
    largest: jax.Array  # the largest estimate before `max_growth` limits it, []
    product: jax.Array  # weighted sum of products of gradients and distances, []
    total: Updates  # weighted sum of gradients, like the parameters
    mu: Updates  # EMA of d g, like the parameters
    nu: Updates  # EMA of its square, like the parameters
    anchor: Updates  # the first parameters, 0 before the first update, like them


@factory
def step_by_prodigy(
    learning_rate: Rate = 1.0,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    first_distance: Hyper = 1e-6,
    scale: Hyper = 1.0,
    lr_power: Hyper = 1.0,
    max_growth: Hyper = math.inf,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    r"""Step along Adam's direction by an estimate of the distance to the solution, which only grows.

    $$m_t = b_1 m_{t-1} + (1 - b_1)\, d_t g_t, \qquad v_t = b_2 v_{t-1} + (1 - b_2)\, d_t^2 g_t^2$$
    $$r_t = \sqrt{b_2}\, r_{t-1} + \eta_t d_t^2 \langle g_t, p_0 - p_{t-1} \rangle, \qquad
      s_t = \sqrt{b_2}\, s_{t-1} + \eta_t^{\mathrm{lr\_power}} d_t^2 g_t$$
    $$u_t = -\eta_t d_t \left(\frac{m_t}{\sqrt{v_t} + d_t \epsilon} +
      \mathrm{weight\_decay} \, p_{t-1} \right), \qquad
      d_{t+1} = \max\left(d_t, \mathrm{scale} \, \frac{r_t}{\lVert s_t \rVert_1}\right)$$

    where $\eta$ is `learning_rate`. Sums are over all leaves.

    Args:
        learning_rate: multiplies the step, 1 in the paper; a number or a schedule, such as a
            cosine that falls from 1.
        b1: decay of the EMA of the gradient times the estimate.
        b2: decay of the EMA of its square; its root is the decay of `r` and `s`.
        first_distance: the first estimate, below the distance to the solution.
        scale: of the estimate; what to tune, if anything.
        lr_power: 1 is the paper's; at 0, `safeguard_warmup` of the authors' code, the estimate
            grows less under a small learning rate.
        max_growth: by what factor the estimate may grow in an update, after the first time that
            it grows.
        eps, weight_decay, mask: see the glossary.

    Needs: params.
    State: `16*size` bytes a leaf, `16` once.
    Flops: at most `64*size + 40` a leaf, `100` once.
    Paper: Mishchenko and Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner",
        arXiv:2306.06101, the Adam version.
    Departure: `p_0` is the first `params` that `update` sees. A non-finite entry of a gradient
        counts as zero. As in the paper, no EMA is bias-corrected: for that,
        multiply `learning_rate` by `sqrt(1 - b2^t) / (1 - b1^t)`.
    Limits: four times the parameters' memory. The estimate never falls. Without `eps`, an entry whose
        `d g` has a square below the least number, `g` below 1e-12 at the first estimate, has no
        step. In groups of `optax.partition` each has its own.

    >>> tx, p = gk.step_by_prodigy(b1=0.0, b2=0.25, eps=0.0), jnp.array([3.0, 1.0])
    >>> u, _ = tx.update(jnp.array([-2.0, 5.0]), tx.init(p), p)
    >>> print([f"{1e6 * x:.3f}" for x in u])  # the first estimate, over sqrt(1 - b2)
    ['1.155', '-1.155']
    """
    name = "step_by_prodigy"
    check.nonnegative(
        name,
        learning_rate=learning_rate,
        eps=eps,
        scale=scale,
        lr_power=lr_power,
        weight_decay=weight_decay,
    )
    check.interval(name, "[0, 1)", b1=b1, b2=b2)
    check.positive(name, first_distance=first_distance)
    check.at_least(name, 1, max_growth=max_growth)
    check_mask(name, mask)

    def init(params: Params) -> ProdigyState:
        scalars = [jnp.sum(tree.zero_per_leaf(params)) for _ in range(3)]
        trees = [tree.zeros(params) for _ in range(4)]
        return ProdigyState(jnp.zeros([], jnp.int32), *scalars, *trees)

    def update(
        updates: Updates, state: ProdigyState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, ProdigyState]:
        del extra
        check.given(name, params)
        g = numbers.like(numbers.read_squarable(updates), state.anchor)
        p = numbers.like(params, state.anchor)
        start, count = state.count == 0, numbers.increment(state.count)
        anchor = jax.tree.map(lambda x, x0: jnp.where(start, x, x0), p, state.anchor)
        first = jnp.asarray(first_distance, state.distance.dtype)
        d = jnp.where(start, first, state.distance)
        now = jnp.asarray(rate.at(learning_rate, state.count), d.dtype)
        report.number("learning_rate", now * d)

        # weights are those of the equations over `first_distance`, which r / s is free of
        weight, kept = d / first * d, jnp.sqrt(jnp.asarray(b2, d.dtype))
        back = jax.tree.map(jnp.subtract, anchor, p)
        product = kept * state.product + now * weight * tree.dot(g, back)

        def leaf(
            s: jax.Array, m: jax.Array, v: jax.Array, g: jax.Array
        ) -> tuple[jax.Array, ...]:
            s = kept * s + now**lr_power * weight * g
            g = numbers.squarable(d * g)
            m, v = tree.ema(b1, m, g), tree.ema_of_squares(b2, v, g)
            return s.astype(m.dtype), m, v, tree.over_root(m, root(v), d * eps)

        leaves = tree.map_by_shape(leaf, state.total, state.mu, state.nu, g)
        total, mu, nu, direction = tree.unzip(state.mu, leaves, 4)

        def move(u: jax.Array, p: jax.Array) -> jax.Array:
            return (-now * d * (u + weight_decay * p)).astype(u.dtype)

        u = jax.tree.map(move, direction, decayed(name, mask, p))

        length = tree.dot(total, jax.tree.map(jnp.sign, total))
        estimate = scale * tree.ratio(product, length)
        largest = jnp.maximum(jnp.maximum(state.largest, d), estimate)
        growth = jnp.minimum(
            max_growth, jnp.finfo(d.dtype).max
        )  # inf has no derivative
        grown = jnp.where(d <= first, jnp.maximum(d, estimate), d * growth)
        distance = jnp.minimum(largest, grown).astype(d.dtype)
        state = ProdigyState(
            count, distance, largest.astype(d.dtype), product, total, mu, nu, anchor
        )
        return numbers.like(u, updates), state

    return transform(init, update)
