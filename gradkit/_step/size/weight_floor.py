"""The weight floor: no unit moves less than in proportion to its weights."""

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, stateless


@factory
def step_by_weight_floor(floor: Hyper = 0.3825) -> Transform:
    r"""Lengthen the direction of each output unit to at least a fraction of the unit's weights.

    $$u_j = d_j \max\left(1, \; \mathrm{floor} \,
      \frac{\lVert w_j \rVert}{\lVert d_j \rVert}\right)$$

    A unit `j` is an index of the last axis of a kernel `[..., in, out]`.

    Args:
        floor: the least norm of a unit's direction, as a fraction of the norm of its weights.

    Needs: params. Stands before `step_by_learning_rate`, which multiplies the floor too.
    State: `0` bytes a leaf, `0` once.
    Flops: at most `18*size + 12*cols` a leaf.
    Paper: none; the row-wise u/w floor of the optimization track of modded-nanogpt, where it
        stands behind Muon's direction.
    Departure: a direction of zero stays zero. The record counts norms as at least `1e-8`.
    Limits: leaves of fewer than two axes pass as they are. Noise in a unit that has converged
        is lengthened too: the learning rate must fall.

    >>> tx = gk.step_by_weight_floor(0.5)
    >>> w, d = jnp.array([[4.0, 4.0, 4.0]]), jnp.array([[-1.0, 3.0, 0.0]])
    >>> tx.update(d, tx.init(w), w)[0].tolist()
    [[-2.0, 3.0, 0.0]]
    """
    check.nonnegative("step_by_weight_floor", floor=floor)

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del extra
        check.given("step_by_weight_floor", params)

        def lengthen(d: jax.Array, w: jax.Array) -> jax.Array:
            if d.ndim < 2:
                return d
            axes = tuple(range(d.ndim - 1))
            norm = norms.along(d, axes)
            least = (floor * norms.along(w.astype(d.dtype), axes)).astype(d.dtype)
            unit = d * numbers.inverse(norm)
            return jnp.where(norm < least, least * unit, d)

        u = jax.tree.map(lengthen, numbers.wide(updates), params)
        return numbers.like(u, updates)

    return stateless(update)
