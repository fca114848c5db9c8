"""The minimax concave penalty: small weights become zero, large ones are left alone."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, rate
from gradkit._core.factory import factory
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Rate,
    Transform,
    Updates,
    transform,
)


class NonconvexState(NamedTuple):
    """State of `shrink_by_nonconvex`."""

    count: jax.Array  # updates so far, int32 []


@factory
def shrink_by_nonconvex(shrinkage: Rate = 1e-4, *, plateau: Hyper = 1e-2) -> Transform:
    r"""Land where updated weights below `shrinkage` are zero, and those above `plateau` stay.

    $$\hat p = p + \Delta, \qquad u = -p + \begin{cases} 0 & |\hat p| \le \mathrm{shrinkage} \\
      \mathrm{sign}(\hat p) \, \dfrac{|\hat p| - \mathrm{shrinkage}}
      {1 - \mathrm{shrinkage} / \mathrm{plateau}} & |\hat p| \le \mathrm{plateau} \\
      \hat p & \text{else} \end{cases}$$

    Args:
        shrinkage: the size up to which weights become zero, in their units: the learning rate
            times the factor of the penalty; a number, or a schedule of the number of updates
            made before this one.
        plateau: the size above which weights are left alone, above `shrinkage`: the factor of
            the penalty times its concavity, 3 in the paper.

    Needs: params. Stands last in a chain.
    State: `0` bytes a leaf, `4` once.
    Flops: at most `24*size` a leaf, `10` once.
    Paper: Yang, Asgharian and Celeux, "Accelerated Gradient Methods for Sparse Statistical
        Learning with Nonconvex Penalties", arXiv:2009.10629, Section 2, for the minimax
        concave penalty.
    Departure: this is the proximal step alone; for acceleration put an EMA before it. The paper's
        other penalty, SCAD, is not implemented.
    Limits: shrinks every leaf; wrap in `optax.masked` to spare gains and biases. Weights are
        exactly zero where the updates have the dtype of the parameters or a wider one.

    >>> tx = gk.shrink_by_nonconvex(shrinkage=1.0, plateau=3.0)
    >>> p = jnp.array([-0.5, -2.0, 5.0])
    >>> (p + tx.update(0 * p, tx.init(p), p)[0]).tolist()
    [0.0, -1.5, 5.0]
    """
    check.nonnegative("shrink_by_nonconvex", shrinkage=shrinkage)
    check.positive("shrink_by_nonconvex", plateau=plateau)
    check.below("shrink_by_nonconvex", "plateau", plateau, shrinkage=shrinkage)

    def init(params: Params) -> NonconvexState:
        del params
        return NonconvexState(jnp.zeros([], jnp.int32))

    def update(
        updates: Updates, state: NonconvexState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, NonconvexState]:
        del extra
        check.given("shrink_by_nonconvex", params)
        least = rate.at(shrinkage, state.count)

        def shrink(u: jax.Array, p: jax.Array) -> jax.Array:
            p = p.astype(u.dtype)
            low, high = jnp.asarray(least, u.dtype), jnp.asarray(plateau, u.dtype)
            size = jnp.abs(p + u)
            between = low / numbers.divisible(high - low) * (high - size)
            shrunk = u - jnp.sign(p + u) * jnp.maximum(between, 0)
            return jnp.where(size <= low, -p, shrunk)

        u = jax.tree.map(shrink, numbers.read(updates), params)
        return numbers.like(u, updates), NonconvexState(numbers.increment(state.count))

    return transform(init, update)
