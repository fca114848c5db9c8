"""AdaGC: clip every tensor to the EMA of its own norm."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, report, tree
from gradkit._core.factory import factory
from gradkit._core.norms import clip_factor, given_or, of_leaves, of_vector
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class EmaNormState(NamedTuple):
    """State of `clip_by_ema_norm`."""

    count: jax.Array  # updates so far, int32 []
    norms: jax.Array  # EMA of clipped norms, [leaves], 0 until a leaf has one


@factory
def clip_by_ema_norm(
    max_ratio: Hyper = 1.05,
    *,
    decay: Hyper = 0.98,
    max_norm: Hyper = 1.0,
    warmup: Hyper = 100,
) -> Transform:
    r"""Shrink the gradient of each leaf to a little over the EMA of its clipped norms.

    $$u_{t,i} = h_{t,i} \, g_{t,i}, \qquad h_{t,i} = \begin{cases}
      \min(1, \mathrm{max\_norm} / \lVert g_t \rVert) & t < \mathrm{warmup} \\
      \min(1, \mathrm{max\_ratio} \, \gamma_{t-1,i} / \lVert g_{t,i} \rVert) & \text{else}
      \end{cases}$$
    $$\gamma_{t,i} = \begin{cases} \min(\gamma_{t-1,i}, \lVert u_{t,i} \rVert)
      & t < \mathrm{warmup} \\ \mathrm{decay} \, \gamma_{t-1,i} + (1 - \mathrm{decay})
      \lVert u_{t,i} \rVert & \text{else} \end{cases}$$

    Args:
        max_ratio: the largest norm of a leaf that passes, as a multiple of that EMA.
        decay: of the EMAs.
        max_norm: the largest norm of the whole gradient that passes during warm-up, in
            units of the gradient.
        warmup: the update from which leaves are clipped by themselves.

    Needs: nothing; `global_norm`, where given and finite, stands for the norm of the whole
        gradient, so that groups under `optax.partition` can share one.
    State: `4` bytes a leaf, `4` once.
    Flops: at most `14*size + 60` a leaf, `60` once.
    Paper: Wang et al., "AdaGC: Improving Training Stability for Large Language Model
        Pretraining", arXiv:2502.11034, Algorithm 1, without its Adam.
    Departure: a norm of zero is not counted, and a leaf whose norms were all zero stays in
        warm-up; in the paper such a leaf never moves again.
    Limits: a leaf whose gradients must grow can do so by at most
        `(1 - decay) * (max_ratio - 1)` of its EMA an update.

    >>> tx = gk.clip_by_ema_norm(max_ratio=2.0, warmup=2)
    >>> _, state = tx.update(jnp.float32(0.5), tx.init(jnp.zeros([])))
    >>> print(tx.update(jnp.float32(-100.0), state)[0].round(3))  # twice the EMA
    -1.0
    """
    check.nonnegative("clip_by_ema_norm", max_ratio=max_ratio, max_norm=max_norm)
    check.nonnegative("clip_by_ema_norm", warmup=warmup)
    check.interval("clip_by_ema_norm", "[0, 1)", decay=decay)

    def init(params: Params) -> EmaNormState:
        return EmaNormState(jnp.zeros([], jnp.int32), tree.zero_per_leaf(params))

    def update(
        updates: Updates,
        state: EmaNormState,
        params: Params = None,
        *,
        global_norm: jax.Array | None = None,
        **extra: Extra,
    ) -> tuple[Updates, EmaNormState]:
        del params, extra
        g = numbers.read(updates)
        norms = of_leaves(updates).astype(state.norms.dtype)
        total_norm = given_or(of_vector(norms), global_norm)
        step = numbers.increment(state.count)

        unseen = state.norms == 0
        started = step.astype(norms.dtype) >= jnp.asarray(warmup, norms.dtype)
        warm = unseen | ~started
        size = jnp.where(warm, total_norm, norms)
        limit = jnp.where(warm, max_norm, max_ratio * state.norms)
        factors = clip_factor(size, limit)
        report.clipping("clip_by_ema_norm", factors)

        clipped = factors * norms
        least = jnp.where(unseen, clipped, jnp.minimum(state.norms, clipped))
        ema = decay * state.norms + (1 - decay) * clipped
        new_norms = jnp.where(clipped > 0, jnp.where(warm, least, ema), state.norms)
        return numbers.like(tree.scale_each(factors, g), updates), EmaNormState(
            step, new_norms.astype(state.norms.dtype)
        )

    return transform(init, update)
