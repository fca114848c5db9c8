"""Grams: the sizes of the entries come from `inner`, their signs from the gradient."""

import jax
import jax.numpy as jnp
import optax

from gradkit._core import numbers
from gradkit._core.factory import factory
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Params,
    Transform,
    Updates,
    transform,
)


@factory
def direct_by_grams(inner: AnyTransform) -> Transform:
    r"""Give the direction of `inner` the signs of the gradient.

    $$u_t = \mathrm{sign}(g_t) \, |\mathrm{inner}(g_t)|$$

    Args:
        inner: any transform; its magnitudes are kept, its signs are not.

    Needs: what `inner` needs.
    State: `0` bytes a leaf, `0` once, and the state of `inner`.
    Flops: at most `8*size` a leaf, and those of `inner`.
    Paper: Cao, Li and Song, "Grams: Gradient Descent with Adaptive Momentum Scaling",
        arXiv:2412.17107, Algorithm 1.
    Departure: takes any `inner`; the paper's is Adam.
    Limits: a zero gradient entry stops that entry, whatever its momentum.

    >>> tx = gk.direct_by_grams(optax.scale(-3.0))
    >>> u, _ = tx.update(jnp.array([1.0, -2.0]), tx.init(jnp.zeros(2)))
    >>> u.tolist()
    [3.0, -6.0]
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> optax.OptState:
        return inner.init(numbers.wide(params))

    def update(
        updates: Updates, state: optax.OptState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, optax.OptState]:
        g = numbers.read(updates)
        magnitude, state = inner.update(g, state, numbers.wide(params), **extra)
        u = jax.tree.map(lambda gi, mi: jnp.sign(gi) * jnp.abs(mi), g, magnitude)
        return numbers.like(u, updates), state

    return transform(init, update)
