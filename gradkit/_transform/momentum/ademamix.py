"""AdEMAMix's numerator: a fast and a slow EMA of the gradient, mixed."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, rate, tree
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


class AdEMAMixState(NamedTuple):
    """State of `average_by_ademamix`: the two EMAs."""

    count: jax.Array  # updates so far, int32 []
    fast: Updates  # EMA with decay b1, like the parameters
    slow: Updates  # EMA with decay b3, like the parameters


@factory
def average_by_ademamix(
    b1: Hyper = 0.9, *, b3: Rate = 0.9999, alpha: Rate = 5.0
) -> Transform:
    r"""Replace each gradient by its fast EMA plus `alpha` times its slow one.

    $$m_t = b_1 m_{t-1} + (1 - b_1) g_t, \qquad s_t = b_3 s_{t-1} + (1 - b_3) g_t$$
    $$u_t = m_t / (1 - b_1^t) + \alpha s_t$$

    Args:
        b1: decay of the fast EMA, which is bias-corrected.
        b3: decay of the slow EMA, which is not; a number or a schedule, such as
            `schedule_by_half_life`.
        alpha: weight of the slow EMA; a number or a schedule.

    State: `8*size` bytes a leaf, `4` once.
    Flops: at most `16*size` a leaf.
    Paper: Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older",
        arXiv:2409.03137, Algorithm 1.
    Departure: the numerator alone; the recipe `ademamix` divides it as the paper does.
    Limits: without warming up `alpha` and `b3`, early training can diverge.

    >>> tx = gk.average_by_ademamix(b1=0.0, alpha=0.0)  # no memory: the gradient itself
    >>> u, _ = tx.update(jnp.float32(2.0), tx.init(jnp.float32(0.0)))
    >>> float(u)
    2.0
    """
    check.interval("average_by_ademamix", "[0, 1)", b1=b1, b3=b3)
    check.nonnegative("average_by_ademamix", alpha=alpha)

    def init(params: Params) -> AdEMAMixState:
        step = jnp.zeros([], jnp.int32)
        return AdEMAMixState(step, tree.zeros(params), tree.zeros(params))

    def update(
        updates: Updates, state: AdEMAMixState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, AdEMAMixState]:
        del params, extra
        g = numbers.read(updates)
        step = numbers.increment(state.count)
        fast = tree.ema(b1, state.fast, g)
        slow = tree.ema(rate.at(b3, state.count), state.slow, g)
        weight = rate.at(alpha, state.count)
        u = jax.tree.map(
            lambda m, s: m + weight * s, tree.bias_corrected(fast, b1, step), slow
        )
        return numbers.like(u, updates), AdEMAMixState(step, fast, slow)

    return transform(init, update)
