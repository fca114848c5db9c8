"""LAWA: the mean of the latest checkpoints."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import averages, check, condition, numbers, tree
from gradkit._core.averages import AverageState
from gradkit._core.factory import factory
from gradkit._core.paths import map_unboxed, unboxed
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class WindowState(NamedTuple):
    """State of `average_params_by_window`: the latest checkpoints, and their mean."""

    latest: Updates  # the oldest overwritten first, each leaf [length, ...]
    mean: AverageState


@factory
def average_params_by_window(length: int = 6, *, every: Hyper = 1000) -> Transform:
    r"""Keep the mean of the latest checkpoints of the parameters, and pass updates on.

    $$p_t = p_{t-1} + u_t, \qquad \bar p_t = \frac{1}{n} \sum_{j=0}^{n-1} p_{\tau - j \,
      \mathrm{every}}, \qquad n = \min(\mathrm{length}, \tau / \mathrm{every}),$$

    $\tau$ the last multiple of `every` up to $t$. Before the first, the average is the
    parameters. Stands last in a chain, where updates are what parameters move by, but before a
    `round_by_`. `gk.eval_params(state, params)` is the average, from the state of any chain.

    Args:
        length: how many checkpoints are averaged.
        every: updates from one to the next; the paper's are an epoch apart.

    Needs: params.
    State: `4*size*(length + 1)` bytes a leaf, `4` once.
    Flops: at most `size*(length + 8)` a leaf, `20` once; between two checkpoints `2*size`.
    Paper: Kaddour, "Stop Wasting My Time! Saving Days of ImageNet and BERT Training with Latest
        Weight Averaging", arXiv:2209.14981.
    Departure: none.
    Limits: the checkpoints are in the memory of the state; an EMA needs one copy alone.
        Statistics that are not parameters, such as those of batch normalization, are not
        averaged. An update that is not finite counts as zero. The average is kept in at least
        float32.

    >>> tx = gk.chain(gk.sgd(1.0), gk.average_params_by_window(2, every=1))
    >>> p, state = jnp.float32(0.0), tx.init(jnp.float32(0.0))
    >>> for _ in range(5): u, state = tx.update(jnp.float32(-1.0), state, p); p = p + u
    >>> print(gk.eval_params(state, p))  # the mean of 4 and 5
    4.5
    """
    check.positive("average_params_by_window", every=every)
    if not isinstance(length, jax.Array):  # under optax.inject_hyperparams
        check.count("average_params_by_window", length=length)

    def init(params: Params) -> WindowState:
        check.concrete("average_params_by_window", length=length)
        mean = AverageState(jnp.zeros([], jnp.int32), tree.zeros(params))
        stack = lambda x: jnp.stack([x] * int(length))
        return WindowState(jax.tree.map(stack, unboxed(mean.average)), mean)

    def update(
        updates: Updates, state: WindowState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, WindowState]:
        del extra
        check.given("average_params_by_window", params)
        count = numbers.increment(state.mean.count)
        due = count % jnp.asarray(every, jnp.int32) == 0
        new = averages.after(params, updates)

        def renew(kept: tuple[Updates, Updates]) -> tuple[Updates, Updates]:
            number = count // jnp.asarray(every, jnp.int32)
            place, filled = (number - 1) % length, jnp.minimum(number, length)

            def put(xs: jax.Array, x: jax.Array) -> jax.Array:
                x = x.astype(xs.dtype)
                return jax.lax.dynamic_update_index_in_dim(xs, x, place, 0)

            def mean_of(old: jax.Array, xs: jax.Array) -> jax.Array:
                return jnp.sum(xs, 0, dtype=old.dtype) / filled.astype(old.dtype)

            latest = map_unboxed(put, kept[0], new)
            return latest, map_unboxed(mean_of, kept[1], latest)

        kept = state.latest, state.mean.average
        latest, average = condition.when(due, renew, kept)
        first = count < jnp.asarray(every, jnp.int32)
        average = jax.tree.map(
            lambda x, p: jnp.where(first, p.astype(x.dtype), x), average, new
        )
        return updates, WindowState(latest, AverageState(count, average))

    return transform(init, update)
