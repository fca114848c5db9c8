"""Fira's limiter: no leaf's norm grows much from one update to the next."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, report, tree
from gradkit._core.factory import factory
from gradkit._core.norms import of_leaves
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class NormGrowthState(NamedTuple):
    """State of `clip_by_norm_growth`."""

    norms: jax.Array  # last norm of every leaf that was not zero, [leaves], or 0


@factory
def clip_by_norm_growth(max_growth: Hyper = 1.01, *, floor: Hyper = 0.0) -> Transform:
    r"""Shrink each leaf to at most a little over its norm after the last update.

    $$u_{t,i} = g_{t,i} \min\left(1, \; \frac{\max(\mathrm{max\_growth} \,
      \lVert u_{t-1,i} \rVert, \; \mathrm{floor})}{\lVert g_{t,i} \rVert}\right)$$

    Args:
        max_growth: the largest norm of a leaf that passes, as a multiple of its last norm. The
            first passes as it is.
        floor: the norm up to which every leaf passes, in units of the gradient.

    State: `4` bytes a leaf, `0` once.
    Flops: at most `14*size + 40` a leaf, `40` once.
    Paper: Chen and others, "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
        Constraint?", arXiv:2410.01623, its norm-growth limiter.
    Departure: a norm of zero is skipped, since nothing could grow from it. The paper has no
        `floor`, as with `floor=0`.
    Limits: the limit falls at once and rises slowly: after one gradient that is a hundred times
        smaller, the norm needs 463 updates to recover at 1 % each, unless `floor` lets it pass.
        The first norm is not limited.

    >>> tx = gk.clip_by_norm_growth(2.0)
    >>> _, state = tx.update(jnp.float32(1.0), tx.init(jnp.float32(0.0)))
    >>> print(tx.update(jnp.float32(-5.0), state)[0])
    -2.0
    """
    check.positive("clip_by_norm_growth", max_growth=max_growth)
    check.nonnegative("clip_by_norm_growth", floor=floor)

    def init(params: Params) -> NormGrowthState:
        return NormGrowthState(tree.zero_per_leaf(params))

    def update(
        updates: Updates, state: NormGrowthState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, NormGrowthState]:
        del params, extra
        last = state.norms
        norms = of_leaves(updates).astype(last.dtype)
        limits = jnp.maximum(max_growth * last, floor).astype(last.dtype)
        large = (last > 0) & (norms > limits)
        factors = jnp.where(large, limits / jnp.where(large, norms, 1), 1)
        report.clipping("clip_by_norm_growth", factors)
        kept = jnp.where(large, limits, jnp.where(norms > 0, norms, last))
        u = tree.scale_each(factors, numbers.read(updates))
        return numbers.like(u, updates), NormGrowthState(kept)

    return transform(init, update)
