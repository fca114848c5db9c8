"""SaRA's mask: only weights that were small at every test so far."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class SmallWeightState(NamedTuple):
    """State of `mask_by_small_weight`: the mask of weights that may move."""

    count: jax.Array  # updates so far, int32 []
    mask: Any  # bool, like the parameters: was below the threshold at every test


@factory
def mask_by_small_weight(threshold: Hyper = 2e-3, *, every: Hyper = 2500) -> Transform:
    r"""Keep the gradient of weights that start small, and drop those that have grown.

    $$m_t = \begin{cases} m_{t-1} \, [\, |p_{t-1}| < \mathrm{threshold} \,] & \text{if every
      divides } t - 1 \\ m_{t-1} & \text{else} \end{cases}, \qquad u_t = m_t \, g_t$$

    Args:
        threshold: the size below which a weight may move, in units of the parameters.
        every: updates between two tests of the weights.

    Needs: params. Stands before momentum, or after everything: the mask is of weights.
    State: `size` bytes a leaf, `4` once.
    Flops: at most `9*size` a leaf, `30` once.
    Paper: Hu and others, "SaRA: High-Efficient Diffusion Model Fine-tuning with Progressive
        Sparse Low-Rank Adaptation", arXiv:2409.06633.
    Departure: the paper tests twice, before the first update and half way, where it also resets
        its EMAs. Its penalty on the nuclear norm belongs to the loss. The authors' code trains
        the sizes of the weights, without their signs.
    Limits: momentum and decay that come after the mask move weights that have left it.

    >>> tx = gk.mask_by_small_weight(0.1)
    >>> p = jnp.array([0.05, -2.0])
    >>> tx.update(jnp.array([1.0, 1.0]), tx.init(p), p)[0].tolist()
    [1.0, 0.0]
    """
    check.positive("mask_by_small_weight", threshold=threshold, every=every)

    def init(params: Params) -> SmallWeightState:
        everything = jax.tree.map(lambda p: jnp.ones_like(p, dtype=bool), params)
        return SmallWeightState(jnp.zeros([], jnp.int32), everything)

    def update(
        updates: Updates, state: SmallWeightState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, SmallWeightState]:
        del extra
        check.given("mask_by_small_weight", params)
        due = state.count % every == 0

        def shrink(m: jax.Array, p: jax.Array) -> jax.Array:
            return m & (~due | (jnp.abs(p) < jnp.asarray(threshold, p.dtype)))

        mask = jax.tree.map(shrink, state.mask, numbers.wide(params))
        u = jax.tree.map(lambda m, g: jnp.where(m, g, 0), mask, numbers.read(updates))
        return numbers.like(u, updates), SmallWeightState(
            numbers.increment(state.count), mask
        )

    return transform(init, update)
