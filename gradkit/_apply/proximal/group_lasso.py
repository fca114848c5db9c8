"""Group lasso: every group of weights loses norm, and small ones become zero."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, rate
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Params, Rate, Transform, Updates, transform


class GroupLassoState(NamedTuple):
    """State of `shrink_by_group_lasso`."""

    count: jax.Array  # updates so far, int32 []


@factory
def shrink_by_group_lasso(
    shrinkage: Rate = 1e-4, *, axes: tuple[int, ...] = (-1,)
) -> Transform:
    r"""Land where every group of the updated parameters is shorter by `shrinkage`, or zero.

    $$\hat p = p + \Delta, \qquad u = \hat p_g \, \max(0, 1 - \mathrm{shrinkage} / \lVert \hat
      p_g \rVert) - p_g$$

    Args:
        shrinkage: the norm that every group loses in one update, in units of the parameters:
            the learning rate times the factor of the penalty; a number, or a schedule of the
            number of updates made before this one.
        axes: those that index the groups; all others are inside a group. `(-1,)` are the
            units of a kernel `[..., in, out]`, `(-2,)` its inputs.

    Needs: params. Stands last in a chain.
    State: `0` bytes a leaf, `4` once.
    Flops: at most `24*size` a leaf, `4` once.
    Paper: Wen, Wu, Wang, Chen and Li, "Learning Structured Sparsity in Deep Neural Networks",
        arXiv:1608.03665, Equations 1 and 2.
    Departure: the paper adds a subgradient of the penalty and cuts weights off afterwards;
        this is the penalty's proximal point, where groups are exactly zero.
    Limits: leaves of fewer than two axes pass as they are. A group is exactly zero where the
        updates have the dtype of the parameters or a wider one. A non-finite entry counts as
        zero.

    >>> tx = gk.shrink_by_group_lasso(1.0)
    >>> p = jnp.array([[3.0, 0.1], [4.0, 0.2]])
    >>> print((p + tx.update(0 * p, tx.init(p), p)[0]).ravel().round(3))
    [2.4 0.  3.2 0. ]
    """
    check.nonnegative("shrink_by_group_lasso", shrinkage=shrinkage)

    def init(params: Params) -> GroupLassoState:
        del params
        return GroupLassoState(jnp.zeros([], jnp.int32))

    def update(
        updates: Updates, state: GroupLassoState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, GroupLassoState]:
        del extra
        check.given("shrink_by_group_lasso", params)
        lost_norm = rate.at(shrinkage, state.count)

        def shrink(u: jax.Array, p: jax.Array) -> jax.Array:
            if u.ndim < 2:
                return u
            p = p.astype(u.dtype)
            group_axes = {axis % u.ndim for axis in axes}
            inside = tuple(axis for axis in range(u.ndim) if axis not in group_axes)
            norm = norms.along(p + u, inside)
            short = norm <= jnp.asarray(lost_norm, u.dtype)
            fraction = (lost_norm / jnp.where(short, 1, norm)).astype(u.dtype)
            return jnp.where(short, -p, u - fraction * (p + u))

        u = jax.tree.map(shrink, numbers.read(updates), params)
        return numbers.like(u, updates), GroupLassoState(numbers.increment(state.count))

    return transform(init, update)
