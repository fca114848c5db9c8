"""Decoupled weight decay."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, rate
from gradkit._core.factory import factory
from gradkit._core.mask import Mask, check_mask, decayed
from gradkit._core.types import Extra, Params, Rate, Transform, Updates, transform


class WeightDecayState(NamedTuple):
    """State of `decay_by_weight`."""

    count: jax.Array  # updates so far, int32 []


@factory
def decay_by_weight(weight_decay: Rate = 1e-2, *, mask: Mask = None) -> Transform:
    r"""Take from each update a fraction of the parameter, whatever the learning rate.

    $$u_t = \Delta_t - \mathrm{weight\_decay}_{t-1} \, p_{t-1}$$

    Args:
        weight_decay: the fraction of each parameter lost in one update; a number or a schedule.
        mask: see the glossary.

    Needs: params, unless `weight_decay` is 0. Stands after `step_by_learning_rate`, where the sign has turned.
    State: `0` bytes a leaf, `4` once.
    Flops: at most `6*size` a leaf.
    Paper: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101,
        Algorithm 2, line 12.
    Departure: the paper multiplies step and decay by one schedule; here each has its own. torch
        and optax multiply the decay by the learning rate. The recipes do so too: they pass the
        product.
    Limits: decays every leaf, gains and biases too, unless `mask` spares them.

    >>> tx = gk.decay_by_weight(0.1)
    >>> u, _ = tx.update(jnp.float32(0.0), tx.init(jnp.float32(2.0)), jnp.float32(2.0))
    >>> round(float(u), 6)
    -0.2
    """
    check.nonnegative("decay_by_weight", weight_decay=weight_decay)
    check_mask("decay_by_weight", mask)

    def init(params: Params) -> WeightDecayState:
        del params
        return WeightDecayState(jnp.zeros([], jnp.int32))

    def update(
        updates: Updates, state: WeightDecayState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, WeightDecayState]:
        del extra
        count = numbers.increment(state.count)
        if rate.is_zero(weight_decay):
            return updates, WeightDecayState(count)
        check.given("decay_by_weight", params)
        fraction = rate.at(weight_decay, state.count)

        def shrink(u: jax.Array, p: jax.Array) -> jax.Array:
            return (u - fraction * p.astype(u.dtype)).astype(u.dtype)

        shrinking = decayed("decay_by_weight", mask, params)
        u = jax.tree.map(shrink, numbers.wide(updates), shrinking)
        return numbers.like(u, updates), WeightDecayState(count)

    return transform(init, update)
