"""AutoClip: clip to a percentile of the gradient norms seen so far."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, condition, numbers, report, tree
from gradkit._core.factory import factory
from gradkit._core.norms import given_or, of_tree
from gradkit._core.percentile import of_first
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Transform,
    Updates,
    transform,
)


class PercentileState(NamedTuple):
    """State of `clip_by_percentile`: a ring buffer of gradient norms."""

    seen: jax.Array  # norms kept so far, int32 []
    norms: jax.Array  # the last of them, [history]; unused slots are zero


@factory
def clip_by_percentile(percentile: Hyper = 10.0, *, history: int = 1000) -> Transform:
    r"""Clip the global norm of the gradient to a percentile of its norms so far.

    $$n_t = \lVert g_t \rVert, \quad c_t = \mathrm{percentile}(n_1, \dots, n_t), \quad
      u_t = g_t \cdot \min(1, c_t / n_t)$$

    Args:
        percentile: from 0, the least norm, to 100, the largest; interpolated linearly.
        history: how many of the last norms are kept.

    Needs: nothing; `global_norm`, where given and finite, stands for the norm of the
        gradient, so that groups under `optax.partition` can share one.
    State: `0` bytes a leaf, `4 + 4*history` once.
    Flops: at most `14*size + 20` a leaf, `100 + 64*history` once.
    Paper: Seetharaman, Wichern, Pardo and Le Roux, "AutoClip: Adaptive Gradient Clipping
        for Source Separation Networks", arXiv:2007.14469.
    Departure: the paper keeps every norm. A norm of zero, as of a gradient without a finite
        entry, is not kept. The authors' code adds 1e-6 to the norm.
    Limits: at 100 nothing is clipped; at 0 every gradient is, to the least norm kept.

    >>> tx = gk.clip_by_percentile(50.0)
    >>> _, state = tx.update(jnp.float32(1.0), tx.init(jnp.zeros([])))
    >>> float(tx.update(jnp.float32(-3.0), state)[0])  # the median of 1 and 3
    -2.0
    """
    check.interval("clip_by_percentile", "[0, 100]", percentile=percentile)
    if not isinstance(history, jax.Array):  # under optax.inject_hyperparams
        check.count("clip_by_percentile", history=history)

    def init(params: Params) -> PercentileState:
        check.concrete("clip_by_percentile", history=history)
        dtype = tree.zero_per_leaf(params).dtype
        empty = PercentileState(jnp.zeros([], jnp.int32), jnp.zeros(history, dtype))
        return condition.varying_as(empty, params)

    def update(
        updates: Updates,
        state: PercentileState,
        params: Params = None,
        *,
        global_norm: jax.Array | None = None,
        **extra: Extra,
    ) -> tuple[Updates, PercentileState]:
        del params, extra
        g = numbers.read(updates)
        norm = given_or(of_tree(updates), global_norm).astype(state.norms.dtype)
        size = state.norms.size
        slots = jnp.arange(size, dtype=jnp.int32)
        is_oldest = (slots == state.seen % size) & (norm > 0)
        norms = jnp.where(is_oldest, norm, state.norms)
        seen = jnp.where(norm > 0, numbers.increment(state.seen), state.seen)

        kept = jnp.minimum(seen, size)
        limit = of_first(norms, kept, percentile)
        factor = limit / jnp.where(norm > 0, norm, 1)
        factor = jnp.where(norm > limit, factor, 1)
        report.clipping("clip_by_percentile", factor)
        u = tree.scale(factor, g)
        return numbers.like(u, updates), PercentileState(seen, norms)

    return transform(init, update)
