"""RM3: the median of the last three gradients, entry by entry."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Params, Transform, Updates, transform


class RunningMedianState(NamedTuple):
    """State of `average_by_running_median`: the last two gradients."""

    count: jax.Array  # updates so far, int32 []
    last: Updates  # the gradient of the last update, like the parameters
    before: Updates  # the gradient of the update before it, like the parameters


@factory
def average_by_running_median() -> Transform:
    r"""Replace each gradient by the median of the last three, entry by entry.

    $$u_t = \mathrm{median}(g_t, g_{t-1}, g_{t-2}), \qquad g_{-1} = g_0 = g_1$$

    State: `8*size` bytes a leaf, `4` once.
    Flops: at most `12*size` a leaf.
    Paper: Chatterjee and Zielinski, "On the Generalization Mystery in Deep Learning",
        arXiv:2203.10036, RM3.
    Departure: the first gradient stands for the two that are missing before it.
    Limits: an entry that is large in only one batch of three is lost, be it noise or signal. The
        median lags by one update.

    >>> tx = gk.average_by_running_median()  # what happens once does not count
    >>> _, state = tx.update(jnp.float32(1.0), tx.init(jnp.float32(0.0)))
    >>> print(tx.update(jnp.float32(-1e9), state)[0])
    1.0
    """

    def init(params: Params) -> RunningMedianState:
        step = jnp.zeros([], jnp.int32)
        return RunningMedianState(step, tree.zeros(params), tree.zeros(params))

    def update(
        updates: Updates,
        state: RunningMedianState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, RunningMedianState]:
        del params, extra
        g = numbers.like(numbers.read(updates), state.last)
        first = state.count == 0

        def first_or_kept(g: jax.Array, kept: jax.Array) -> jax.Array:
            return jnp.where(first, g, kept)

        last = jax.tree.map(first_or_kept, g, state.last)
        before = jax.tree.map(first_or_kept, g, state.before)
        u = jax.tree.map(median, g, last, before)
        return numbers.like(u, updates), RunningMedianState(
            numbers.increment(state.count), g, last
        )

    return transform(init, update)


def median(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """The middle one of three."""
    low, high = jnp.minimum(a, b), jnp.maximum(a, b)
    return jnp.maximum(low, jnp.minimum(high, c))
