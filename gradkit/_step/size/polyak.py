"""Polyak's step, cut at a longest: to the least point of the loss's linear model."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, polyak, rate, report, tree
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


class PolyakState(NamedTuple):
    """State of `step_by_polyak`."""

    count: jax.Array  # updates so far, int32 []


@factory
def step_by_polyak(learning_rate: Rate = 1.0, *, lower_bound: Hyper = 0.0) -> Transform:
    r"""Step against the gradient to where the linear model of the loss meets its lower bound.

    $$u_t = -\min\left(\mathrm{learning\_rate}, \;
      \frac{\max(\mathrm{value}_t - \mathrm{lower\_bound}, 0)}{\lVert g_t \rVert^2}\right) g_t$$

    This is the least point of $\max(\mathrm{value} + \langle g, p - p_{t-1} \rangle,
    \mathrm{lower\_bound}) + \lVert p - p_{t-1} \rVert^2 / (2 \, \mathrm{learning\_rate})$.

    Args:
        learning_rate: the longest step, as a multiple of the gradient; a number or a schedule.
        lower_bound: a number that the loss of no batch falls below, of either sign.

    Needs: `global_norm`, where given and finite, stands for the norm of the gradient, so that
        groups under `optax.partition` can share one; and `value`, the loss of the batch of the
        gradient.
    State: `0` bytes a leaf, `4` once.
    Flops: at most `16*size + 64` a leaf, `60` once.
    Paper: Davis and Drusvyatskiy, "Stochastic model-based minimization of weakly convex
        functions", arXiv:1803.06523, the truncated model; the step is Polyak's, of 1969.
    Departure: a non-finite entry of a gradient counts as zero. There is no step if the loss is
        not finite.
    Limits: where the least loss of a batch is far above the bound, steps near the end of training
        are too long: let `learning_rate` fall.

    >>> tx = gk.step_by_polyak(10.0)
    >>> p, g = jnp.array([3.0, 1.0]), jnp.array([2.0, 0.0])
    >>> print(p + tx.update(g, tx.init(p), value=jnp.float32(3.0))[0])  # there 3 + 2 (p - 3) = 0
    [1.5 1. ]
    """
    name = "step_by_polyak"
    check.nonnegative(name, learning_rate=learning_rate)
    check.above(name, -math.inf, lower_bound=lower_bound)

    def init(params: Params) -> PolyakState:
        del params
        return PolyakState(jnp.zeros([], jnp.int32))

    def update(
        updates: Updates,
        state: PolyakState,
        params: Params = None,
        *,
        value: jax.Array | None = None,
        global_norm: jax.Array | None = None,
        **extra: Extra,
    ) -> tuple[Updates, PolyakState]:
        del params, extra
        check.loss(name, value)
        g = numbers.read(updates)
        norm = norms.given_or(norms.of_tree(g), global_norm)
        per_norm = numbers.inverse(norm)
        longest = rate.at(learning_rate, state.count) * norm
        length = jnp.minimum(
            longest, polyak.above(value, lower_bound, norm.dtype) * per_norm
        )
        report.number("learning_rate", length * per_norm)
        u = tree.scale(-length, tree.scale(per_norm, g))
        return numbers.like(u, updates), PolyakState(numbers.increment(state.count))

    return transform(init, update)
