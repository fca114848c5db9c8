"""Cautious weight decay: only where the update already goes towards zero."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, rate
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Params, Rate, Transform, Updates, transform


class CautiousDecayState(NamedTuple):
    """State of `decay_by_caution`."""

    count: jax.Array  # updates so far, int32 []


@factory
def decay_by_caution(weight_decay: Rate = 1e-2) -> Transform:
    r"""Take a fraction of each parameter from its update, unless the update enlarges it.

    $$u_t = \Delta_t - \mathrm{weight\_decay}_{t-1} \,
      \mathbb{1}[\Delta_t \, p_{t-1} \le 0] \, p_{t-1}$$

    Args:
        weight_decay: the fraction of such a parameter lost in one update; a number or a schedule.

    Needs: params, unless `weight_decay` is 0. Stands after `step_by_learning_rate`, where the sign has turned.
    State: `0` bytes a leaf, `4` once.
    Flops: at most `10*size` a leaf.
    Paper: Chen, Li, Liang, Su and others, "Cautious Weight Decay", arXiv:2510.12402,
        Algorithm 1, where a direction $d = -\Delta / \mathrm{learning\_rate}$ is subtracted.
    Departure: the paper multiplies the decay by the learning rate: pass the product.
    Limits: an entry whose update is zero decays.

    >>> tx = gk.decay_by_caution(0.5)
    >>> p, u = jnp.array([2.0, 2.0, -2.0]), jnp.array([0.25, -0.25, 0.0])
    >>> tx.update(u, tx.init(p), p)[0].tolist()
    [0.25, -1.25, 1.0]
    """
    check.nonnegative("decay_by_caution", weight_decay=weight_decay)

    def init(params: Params) -> CautiousDecayState:
        del params
        return CautiousDecayState(jnp.zeros([], jnp.int32))

    def update(
        updates: Updates,
        state: CautiousDecayState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, CautiousDecayState]:
        del extra
        count = numbers.increment(state.count)
        if rate.is_zero(weight_decay):
            return updates, CautiousDecayState(count)
        check.given("decay_by_caution", params)
        fraction = rate.at(weight_decay, state.count)

        def shrink(u: jax.Array, p: jax.Array) -> jax.Array:
            p = p.astype(u.dtype)
            towards_zero = jnp.sign(u) * jnp.sign(p) <= 0  # u * p itself could vanish
            return jnp.where(towards_zero, u - fraction * p, u).astype(u.dtype)

        u = jax.tree.map(shrink, numbers.wide(updates), params)
        return numbers.like(u, updates), CautiousDecayState(count)

    return transform(init, update)
