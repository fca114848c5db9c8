"""The learning rate: where a direction becomes an update and the sign turns, once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, rate, report, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Params, Rate, Transform, Updates, transform


class LearningRateState(NamedTuple):
    """State of `step_by_learning_rate`."""

    count: jax.Array  # updates so far, int32 []


@factory
def step_by_learning_rate(learning_rate: Rate = 1e-3) -> Transform:
    r"""Step against the direction, by the learning rate.

    $$u_t = -\mathrm{learning\_rate}_{t-1} \, d_t$$

    Args:
        learning_rate: a number, or a schedule of the number of updates made before this
            one, as in optax.

    State: `0` bytes a leaf, `4` once.
    Flops: at most `4*size` a leaf.
    Paper: none.
    Departure: none.
    Limits: the one place where the sign turns; put it after every direction.

    >>> tx = gk.step_by_learning_rate(lambda step: jnp.where(step < 1, 1.0, 0.5))
    >>> u, state = tx.update(jnp.float32(2.0), tx.init(jnp.float32(0.0)))
    >>> float(u), float(tx.update(jnp.float32(2.0), state)[0])
    (-2.0, -1.0)
    """
    check.nonnegative("step_by_learning_rate", learning_rate=learning_rate)

    def init(params: Params) -> LearningRateState:
        del params
        return LearningRateState(jnp.zeros([], jnp.int32))

    def update(
        updates: Updates,
        state: LearningRateState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, LearningRateState]:
        del params, extra
        now = rate.at(learning_rate, state.count)
        report.number("learning_rate", now)
        u = tree.scale(-now, numbers.wide(updates))
        return numbers.like(u, updates), LearningRateState(
            numbers.increment(state.count)
        )

    return transform(init, update)
