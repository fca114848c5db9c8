"""Decay of the weights that the loss does not feel."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers, rate
from gradkit._core.factory import factory
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Hyper,
    Params,
    Rate,
    Transform,
    Updates,
    transform,
)


class RelevanceState(NamedTuple):
    """State of `decay_by_relevance`."""

    count: jax.Array  # updates so far, int32 []
    inner: optax.OptState


@factory
def decay_by_relevance(
    inner: AnyTransform, *, weight_decay: Rate = 1e-4, scale: Hyper = 1.0
) -> Transform:
    r"""Take from each update of `inner` a fraction of the parameter, less where its gradient is large.

    $$u_t = \mathrm{inner}(g_t) - \mathrm{weight\_decay}_{t-1} \, e^{-|g_t| / \mathrm{scale}}
      \, p_{t-1}$$

    Args:
        inner: a whole chain with its learning rate. It is wrapped so that its gradients can be
            read.
        weight_decay: the fraction of a parameter without gradient lost in one update; a number or
            a schedule.
        scale: the size of gradient that keeps about two thirds of this decay away.

    Needs: params, unless `weight_decay` is 0, and what `inner` needs.
    State: `0` bytes a leaf, `4` once, and the state of `inner`.
    Flops: at most `12*size` a leaf, `4` once, and those of `inner`.
    Paper: Bonetta, Ribero and Cancelliere, "Regularization-based Pruning of Irrelevant
        Weights in Deep Neural Architectures", arXiv:2204.04977.
    Departure: $e^{-|g|}$ is our reading of the paper's irrelevance, which is 1 without a gradient
        and falls with its size; `scale` is ours. Pruning between rounds is left to the loop.
    Limits: gradients far below `scale` give plain weight decay: set `scale` to their usual
        size.

    >>> tx = gk.decay_by_relevance(optax.sgd(0.0), weight_decay=0.1)
    >>> p, g = jnp.array([2.0, 2.0]), jnp.array([0.0, 50.0])
    >>> print(tx.update(g, tx.init(p), p)[0].round(3))
    [-0.2 -0. ]
    """
    check.nonnegative("decay_by_relevance", weight_decay=weight_decay)
    check.positive("decay_by_relevance", scale=scale)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> RelevanceState:
        return RelevanceState(jnp.zeros([], jnp.int32), inner.init(params))

    def update(
        updates: Updates, state: RelevanceState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, RelevanceState]:
        g = numbers.read(updates)
        inner_updates, inner_state = inner.update(g, state.inner, params, **extra)
        step = numbers.increment(state.count)
        if rate.is_zero(weight_decay):
            return numbers.like(inner_updates, updates), RelevanceState(
                step, inner_state
            )
        check.given("decay_by_relevance", params)
        most = rate.at(weight_decay, state.count)

        def shrink(u: jax.Array, x: jax.Array, p: jax.Array) -> jax.Array:
            fraction = most * jnp.exp(-jnp.abs(x) / scale)
            return (u - fraction.astype(u.dtype) * p.astype(u.dtype)).astype(u.dtype)

        u = jax.tree.map(shrink, numbers.wide(inner_updates), g, params)
        return numbers.like(u, updates), RelevanceState(step, inner_state)

    return transform(init, update)
