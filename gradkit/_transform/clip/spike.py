"""Stable-SPAM's spike clipping: no entry larger than its tensor's largest usually is."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, report, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class SpikeState(NamedTuple):
    """State of `clip_by_spike`."""

    count: jax.Array  # updates so far, int32 []
    largest: jax.Array  # EMA of the largest size of an entry of every leaf, [leaves]


@factory
def clip_by_spike(decay: Hyper = 0.999) -> Transform:
    r"""Shrink the entries of each leaf that are larger than the EMA of its largest ones.

    $$a_{t,i} = \max_j |g_{t,ij}|, \qquad
      T_{t,i} = \mathrm{decay} \, T_{t-1,i} + (1 - \mathrm{decay}) \, a_{t,i}, \qquad
      \hat T_{t,i} = T_{t,i} / (1 - \mathrm{decay}^t)$$
    $$u_{t,ij} = \begin{cases} g_{t,ij} \, \hat T_{t,i} / a_{t,i}
      & |g_{t,ij}| > \hat T_{t,i} \\ g_{t,ij} & \text{else} \end{cases}$$

    Args:
        decay: of the EMA of the size of the largest entry.

    State: `4` bytes a leaf, `4` once.
    Flops: at most `15*size + 40` a leaf.
    Paper: Huang et al., "Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam",
        arXiv:2502.17055, Algorithm 1, its AdaClip.
    Departure: the authors' code restarts the EMA whenever it resets Adam; here it runs on.
    Limits: a spike raises the EMA for about `1 / (1 - decay)` updates, and the first
        update is never clipped. An entry just above the EMA ends below one just under it.

    >>> tx = gk.clip_by_spike(decay=0.5)
    >>> _, state = tx.update(jnp.float32(1.0), tx.init(jnp.float32(0.0)))
    >>> print(tx.update(jnp.float32(-7.0), state)[0])  # (1 + 2 * 7) / 3
    -5.0
    """
    check.interval("clip_by_spike", "[0, 1)", decay=decay)

    def init(params: Params) -> SpikeState:
        return SpikeState(jnp.zeros([], jnp.int32), tree.zero_per_leaf(params))

    def update(
        updates: Updates, state: SpikeState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, SpikeState]:
        del params, extra
        gs, structure = jax.tree.flatten(numbers.read(updates))
        if not gs:
            report.clipping("clip_by_spike", [])
            return updates, SpikeState(numbers.increment(state.count), state.largest)
        maxima = [
            norms.largest(g).astype(state.largest.dtype)
            for g in jax.tree.leaves(updates)
        ]
        largest = tree.ema(decay, state.largest, jnp.stack(maxima))
        limits = tree.bias_corrected(largest, decay, numbers.increment(state.count))
        if report.is_collecting():
            # of scalars: of vectors, XLA would round the EMA otherwise than without a report
            pairs = zip(maxima, limits)
            report.clipping(
                "clip_by_spike", [norms.clip_factor(*pair) for pair in pairs]
            )
        u = [shrink(*leaf) for leaf in zip(gs, maxima, limits)]
        return numbers.like(structure.unflatten(u), updates), SpikeState(
            numbers.increment(state.count), largest
        )

    return transform(init, update)


def shrink(g: jax.Array, largest: jax.Array, limit: jax.Array) -> jax.Array:
    """`g`, its entries above `limit` scaled so that `largest` becomes `limit`."""
    largest, limit = largest.astype(g.dtype), limit.astype(g.dtype)
    fractions = g / jnp.where(largest > 0, largest, 1)
    return jnp.where(jnp.abs(g) > limit, fractions * limit, g)
