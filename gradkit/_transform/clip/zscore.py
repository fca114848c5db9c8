"""ZClip: clip norms that stand out from the norms before them."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, condition, norms, numbers, report, tree
from gradkit._core.derivative import hypot, root
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class ZscoreState(NamedTuple):
    """State of `clip_by_zscore`: mean and variance of clipped norms."""

    seen: jax.Array  # norms so far, int32 []
    mean: jax.Array  # EMA of the norm, []
    deviation: jax.Array  # root of the EMA of the squared distance from it, []


@factory
def clip_by_zscore(
    max_zscore: Hyper = 2.5,
    *,
    decay: Hyper = 0.97,
    warmup: Hyper = 25,
    eps: Hyper = 1e-6,
    max_norm: Hyper = math.inf,
) -> Transform:
    r"""Shrink a gradient whose norm is an outlier, the more the larger its z-score is.

    $$n_t = \lVert g_t \rVert, \quad z_t = (n_t - \mu_{t-1}) / (\sigma_{t-1} + \epsilon),
      \quad c_t = \begin{cases} n_t & z_t \le \mathrm{max\_zscore} \\
      \mu_{t-1} + \sigma_{t-1} \, \mathrm{max\_zscore}^2 / z_t & \text{else} \end{cases}$$
    $$\mu_t = \mathrm{decay}\,\mu_{t-1} + (1 - \mathrm{decay})\,c_t, \quad \sigma_t^2 =
      \mathrm{decay}\,\sigma_{t-1}^2 + (1 - \mathrm{decay})\,(c_t - \mu_t)^2$$
    $$u_t = g_t \cdot \min(c_t, \mathrm{max\_norm}) / n_t$$

    The first `warmup` norms pass; their mean and deviation are the first $\mu$ and $\sigma$.

    Args:
        max_zscore: how far above its mean a norm passes, in standard deviations.
        decay: of the mean and the variance.
        warmup: how many norms the first mean and variance are taken over.
        eps: added to the deviation, in units of the gradient.
        max_norm: the largest norm that passes in any case, in the warm-up too.

    Needs: nothing; `global_norm`, where given and finite, stands for the norm of the
        gradient, so that groups under `optax.partition` can share one.
    State: `0` bytes a leaf, `12` once.
    Flops: at most `14*size + 20` a leaf, `180` once.
    Paper: Kumar, Owen, Roy Chowdhury and Gura, "ZClip: Adaptive Spike Mitigation for LLM
        Pre-Training", arXiv:2504.02507.
    Departure: the authors' code has `max_norm=1`, which the paper does not, and adds 1e-6 to the
        norm. A norm of zero is not counted, so that a bad step does not change the mean.
    Limits: only `max_norm` limits the first `warmup` updates. Norms far below `eps` are never
        outliers; set it to 0 for those.

    >>> tx = gk.clip_by_zscore(warmup=1)  # a single norm has no deviation
    >>> _, state = tx.update(jnp.float32(1.0), tx.init(jnp.zeros([])))
    >>> print(tx.update(jnp.float32(-100.0), state)[0].round(3))
    -1.0
    """
    check.nonnegative(
        "clip_by_zscore", max_zscore=max_zscore, eps=eps, max_norm=max_norm
    )
    check.interval("clip_by_zscore", "[0, 1)", decay=decay)
    check.positive("clip_by_zscore", warmup=warmup)

    def init(params: Params) -> ZscoreState:
        dtype = tree.zero_per_leaf(params).dtype
        seen = jnp.zeros([], jnp.int32)
        zeros = ZscoreState(seen, jnp.zeros([], dtype), jnp.zeros([], dtype))
        return condition.varying_as(zeros, params)

    def update(
        updates: Updates,
        state: ZscoreState,
        params: Params = None,
        *,
        global_norm: jax.Array | None = None,
        **extra: Extra,
    ) -> tuple[Updates, ZscoreState]:
        del params, extra
        g = numbers.read(updates)
        _, mean, deviation = state
        norm = norms.given_or(norms.of_tree(updates), global_norm).astype(mean.dtype)
        seen = numbers.increment(state.seen)
        n = seen.astype(mean.dtype)
        warm = n <= jnp.asarray(warmup, mean.dtype)

        excess, width = norm - mean, deviation + eps
        spike = (excess > max_zscore * width) & ~warm
        inverse = max_zscore * width / jnp.where(spike, excess, 1)  # max_zscore / z
        limit = jnp.where(spike, mean + deviation * inverse * max_zscore, norm)
        factor = norms.clip_factor(norm, jnp.minimum(limit, max_norm))
        report.clipping("clip_by_zscore", factor)

        kept = jnp.where(warm, 1 - 1 / n, decay).astype(mean.dtype)
        new_mean = kept * mean + (1 - kept) * limit
        # Welford's variance while warm: its product has one distance from the old mean
        new, old = jnp.abs(limit - new_mean), jnp.abs(limit - mean)
        distance = jnp.where(warm, root(new) * root(old), new)
        spread = hypot(root(kept) * deviation, root(1 - kept) * distance)

        new_state = ZscoreState(seen, new_mean, spread)
        new_state = jax.tree.map(
            lambda a, b: jnp.where(norm > 0, a, b), new_state, state
        )
        return numbers.like(tree.scale(factor, g), updates), new_state

    return transform(init, update)
