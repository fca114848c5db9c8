"""Clipping that tracks the median of the gradients, where momentum tracks their mean."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, report, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class MedianState(NamedTuple):
    """State of `clip_by_median`: the running median."""

    mu: Updates  # estimate of the median gradient, like the parameters


@factory
def clip_by_median(max_norm: Hyper = 1.0) -> Transform:
    r"""Return a running median of the gradients, moved towards each by at most `max_norm`.

    $$m_t = m_{t-1} + (g_t - m_{t-1}) \min\left(1,
      \frac{\mathrm{max\_norm}}{\lVert g_t - m_{t-1} \rVert}\right), \qquad u_t = m_t$$

    The whole gradient is one vector, and its median the point whose mean distance to the
    gradients is least. The first update is the gradient clipped by its global norm.

    Args:
        max_norm: how far one gradient moves the estimate at most, in units of the gradient.

    State: `4*size` bytes a leaf, `0` once.
    Flops: at most `18*size + 20` a leaf, `40` once.
    Paper: Schaipp, Garrigos, Simsekli and Gower, "SGD with Clipping is Secretly Estimating
        the Median Gradient", arXiv:2402.12828, its proximal point method for the l2 median.
    Departure: starts from zero. The value of `max_norm` is a choice of ours; it is the step
        size of the paper's proximal point method.
    Limits: after a change of the gradient of norm `d` the estimate lags `d / max_norm`
        updates behind. Under `optax.partition` each group has a median of its own.

    >>> tx = gk.clip_by_median(0.5)  # an outlier counts no more than any other
    >>> u, state = tx.update(jnp.float32(0.25), tx.init(jnp.float32(0.0)))
    >>> float(u), float(tx.update(jnp.float32(1e9), state)[0])
    (0.25, 0.75)
    """
    check.nonnegative("clip_by_median", max_norm=max_norm)

    def init(params: Params) -> MedianState:
        return MedianState(tree.zeros(params))

    def update(
        updates: Updates, state: MedianState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, MedianState]:
        del params, extra
        away = jax.tree.map(
            lambda g, m: g.astype(m.dtype) - m, numbers.read(updates), state.mu
        )
        distance = norms.of_tree(away)
        factor = norms.clip_factor(distance, max_norm)
        report.clipping("clip_by_median", factor)
        mu = jax.tree.map(jnp.add, state.mu, tree.scale(factor, away))
        return numbers.like(mu, updates), MedianState(mu)

    return transform(init, update)
