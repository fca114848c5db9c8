"""Optimism: a step ahead along the last direction, as a guess of the next one."""

from typing import NamedTuple

import jax
import optax

from gradkit._core import numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Params,
    Transform,
    Updates,
    transform,
)


class OptimismState(NamedTuple):
    """State of `average_by_optimism`."""

    guess: Updates  # the last direction, taken in advance, like the parameters
    inner: optax.OptState


@factory
def average_by_optimism(inner: AnyTransform) -> Transform:
    r"""Go along `inner`'s direction twice, and once back along the one before.

    $$d_t = \mathrm{inner}(g_t), \qquad u_t = 2 d_t - d_{t-1}, \qquad d_0 = 0$$

    Each update also steps ahead, on the guess that the next direction will equal this one. The
    next update takes that step back, and steps ahead on its own guess.

    Args:
        inner: any transform whose direction has the sign of the gradient; `scale_by_amsgrad`
            makes the paper's method.

    Needs: what `inner` needs.
    State: `4*size` bytes a leaf, `0` once, and the state of `inner`.
    Flops: at most `6*size` a leaf, and those of `inner`.
    Paper: Wang, Li, Karimi and Li, "An Optimistic Acceleration of AMSGrad for Nonconvex
        Optimization", arXiv:1903.01435, OPT-AMSGrad with the last gradient as its guess.
    Departure: the paper also guesses by extrapolating the last gradients. Its denominator squares
        the error of the guess, not the gradient.
    Limits: noise counts up to threefold. A guess is taken back at the current learning rate, not
        at the one it was made with.

    >>> tx = gk.average_by_optimism(optax.identity())
    >>> _, state = tx.update(jnp.float32(3.0), tx.init(jnp.float32(0.0)))
    >>> print(tx.update(jnp.float32(5.0), state)[0])
    7.0
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> OptimismState:
        return OptimismState(tree.zeros(params), inner.init(numbers.wide(params)))

    def update(
        updates: Updates, state: OptimismState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, OptimismState]:
        g = numbers.read(updates)
        direction, inner_state = inner.update(
            g, state.inner, numbers.wide(params), **extra
        )
        direction = numbers.like(direction, state.guess)

        def look_ahead(d: jax.Array, guess: jax.Array) -> jax.Array:
            return d + (d - guess)

        u = jax.tree.map(look_ahead, direction, state.guess)
        return numbers.like(u, updates), OptimismState(direction, inner_state)

    return transform(init, update)
