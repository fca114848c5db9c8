"""Momentum of random length: an EMA times an exponential random number."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, random, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class RandomScalingState(NamedTuple):
    """State of `average_by_random_scaling`."""

    mu: Updates  # EMA of the gradient, like the parameters
    key: jax.Array  # data of the key to draw from next, uint32 [2]


@factory
def average_by_random_scaling(decay: Hyper = 0.99, *, key: random.Key = 0) -> Transform:
    r"""Replace each gradient by its EMA times a random number.

    $$m_t = \mathrm{decay} \, m_{t-1} + (1 - \mathrm{decay}) g_t, \qquad
      u_t = s_t m_t, \qquad s_t \sim \mathrm{Exp}(1)$$

    One `s_t`, of mean 1, scales the whole tree. Then the mean change of the loss over a step is
    the mean product of the gradient at its end and the step without `s_t`.

    Args:
        decay: decay of the EMA of the gradient.
        key: see the glossary.

    State: `4*size` bytes a leaf, `8` once.
    Flops: at most `8*size` a leaf, `120` once.
    Paper: Zhang and Cutkosky, "Random Scaling and Momentum for Non-smooth Non-convex
        Optimization", arXiv:2405.09742, its SGDM with random scaling.
    Departure: the factor `1 - decay` of the EMA is not part of the learning rate. `decay` is a
        choice of ours; the paper's depends on the length of the run.
    Limits: one step in twenty is over three times as long as planned. Groups under
        `optax.partition` draw one number each, the same if their keys are.

    >>> tx, g = gk.average_by_random_scaling(decay=0.0, key=1), jnp.array([2.0, -4.0])
    >>> u, _ = tx.update(g, tx.init(g))
    >>> print((u / u[0]).round(3))  # only the length is random
    [ 1. -2.]
    """
    check.interval("average_by_random_scaling", "[0, 1)", decay=decay)
    check.nonnegative("average_by_random_scaling", key=key)

    def init(params: Params) -> RandomScalingState:
        start = jnp.array(jax.random.key_data(random.typed(key)), copy=True)
        return RandomScalingState(tree.zeros(params), start)

    def update(
        updates: Updates,
        state: RandomScalingState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, RandomScalingState]:
        del params, extra
        mu = tree.ema(decay, state.mu, numbers.read(updates))
        impl = jax.random.key_impl(random.typed(key))
        following, now = jax.random.split(
            jax.random.wrap_key_data(state.key, impl=impl)
        )
        length = jax.random.exponential(now, dtype=jnp.float32)
        u = jax.tree.map(lambda m: length.astype(m.dtype) * m, mu)
        return numbers.like(u, updates), RandomScalingState(
            mu, jax.random.key_data(following)
        )

    return transform(init, update)
