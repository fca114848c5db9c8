"""Gradient accumulation: one step of a transform for several micro-batches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, condition, numbers, rate, report, steps
from gradkit._core.factory import factory
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Params,
    Rate,
    Transform,
    Updates,
)


class AccumulateState(NamedTuple):
    """State of `accumulate`."""

    count: jax.Array  # steps of `inner` so far, int32 []
    micro: jax.Array  # micro-batches of this cycle so far, int32 []
    averaged: jax.Array  # micro-batches of this cycle in the mean, int32 []
    skipped: jax.Array  # micro-batches left out since the first, int32 []
    value: jax.Array  # their mean loss, []; zero where none is given
    mean: Updates  # their mean gradient, like the parameters
    inner: optax.OptState


@factory
def accumulate(inner: AnyTransform, *, every: Rate = 4) -> Transform:
    r"""Average the gradients of several micro-batches, and let `inner` step once with the mean.

    $$\bar g = \frac{1}{|G|} \sum_{j \in G} g_j, \quad
      G = \{ j \text{ of this cycle} : g_j \text{ is finite} \}, \qquad
      u_t = \begin{cases} \mathrm{inner}(\bar g) & t \text{ ends a cycle of } \mathrm{every} \\
      0 & \text{else} \end{cases}$$

    A micro-batch whose gradient or `value` has a non-finite entry is left out and counted in
    `skipped`. It still counts towards the cycle, whose step takes the mean of the finite ones; in
    a cycle without any, `inner` makes no step.

    Args:
        inner: any transform. It runs at the last micro-batch of a cycle only, and sees as many
            updates as there are cycles: its schedules count those.
        every: micro-batches of a cycle; a whole number, or a schedule of the steps of `inner` so
            far, by which the batch can grow. What a schedule returns is rounded down, and counts
            as at least 1.

    Needs: what `inner` needs; `value`, where given, must be at every micro-batch, and `inner` gets
        the mean of it. Other extra arguments are those of the last micro-batch.
    State: `4*size` bytes a leaf, `20` once, and the state of `inner`.
    Flops: at most `8*size + 10` a leaf, `40` once, and those of `inner`; where no cycle ends,
        those of `inner` are not computed, under `vmap` neither.
    Paper: none.
    Departure: `optax.MultiSteps` runs its transform at every micro-batch and discards the result,
        passes on the last `value`, and averages non-finite gradients or, by
        `optax.skip_not_finite`, does not count them towards the cycle.
    Limits: parameters should not change within a cycle: weight decay, for example, belongs
        inside. Micro-batches count alike, whatever their number of tokens. A `global_norm` is
        passed on, not averaged: put `share_norm` inside. The mean is kept in at least float32,
        and `inner` sees it in the wider of the dtypes of the gradient and its parameter; in
        `gradkit.chain` that is float32.

    >>> tx = gk.accumulate(optax.sgd(1.0), every=2)
    >>> g, state = jnp.float32(3.0), tx.init(jnp.float32(0.0))
    >>> for _ in range(2): u, state = tx.update(g, state); print(abs(u))
    0.0
    3.0
    """
    check.at_least("accumulate", 1, every=every)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> AccumulateState:
        blank = [jnp.zeros([], jnp.int32) for _ in range(4)], jnp.zeros([], jnp.float32)
        (count, micro, averaged, skipped), value = condition.varying_as(blank, params)
        return AccumulateState(
            count, micro, averaged, skipped, value, _zeros(params), inner.init(params)
        )

    def update(
        updates: Updates,
        state: AccumulateState,
        params: Params = None,
        *,
        value: jax.Array | None = None,
        **extra: Extra,
    ) -> tuple[Updates, AccumulateState]:
        values = [] if value is None else [jnp.asarray(value, state.value.dtype)]
        good = steps.all_finite((updates, values))
        report.skipping("accumulate", good)
        averaged = state.averaged + good.astype(jnp.int32)

        def add(new: Any, old: Any) -> Any:
            if not numbers.is_trained(new):
                return old
            w = 1 / jnp.maximum(averaged, 1).astype(jnp.finfo(old.dtype).dtype)
            return jnp.where(good, (1 - w) * old + w * new.astype(old.dtype), old)

        mean = jax.tree.map(add, updates, state.mean)
        loss = [add(x, state.value) for x in values]
        micro = state.micro + 1
        ends = micro >= jnp.asarray(rate.at(every, state.count), jnp.int32)
        due = ends & (averaged > 0)
        mean_gradient = _in_wider_dtype(mean, updates, params)
        if loss:
            extra["value"] = loss[0]

        def step(s: optax.OptState) -> tuple[Updates, optax.OptState]:
            return inner.update(mean_gradient, s, params, **extra)

        u, inner_state = steps.rarely(due, step, updates, state.inner)
        after = AccumulateState(
            jnp.where(due, numbers.increment(state.count), state.count),
            jnp.where(ends, 0, micro),
            jnp.where(ends, 0, averaged),
            jnp.where(good, state.skipped, numbers.increment(state.skipped)),
            loss[0] if loss else state.value,
            mean,
            inner_state,
        )
        return u, after

    # keeps the class of `inner`, which marks transforms that round parameters
    return inner._replace(init=init, update=update)


def _zeros(params: Params) -> Updates:
    """Zeros in at least float32, like the parameters; none for leaves without a gradient."""

    def leaf(p: Any) -> Any:
        if not numbers.is_trained(p):
            return optax.MaskedNode()
        return jnp.zeros_like(p, dtype=numbers.wide_dtype(p))

    return jax.tree.map(leaf, params)


def _in_wider_dtype(mean: Updates, updates: Updates, params: Params) -> Updates:
    """The mean in the wider of the dtypes of the gradient and its parameter."""

    def leaf(g: Any, m: Any, p: Any) -> Any:
        if not numbers.is_trained(g):
            return g
        return m.astype(max(g.dtype, p.dtype, key=lambda dtype: dtype.itemsize))

    return jax.tree.map(leaf, updates, mean, updates if params is None else params)
