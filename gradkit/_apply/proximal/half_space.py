"""HSPG of Only Train Once: a group whose step would turn it around becomes zero."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, rate
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


class HalfSpaceState(NamedTuple):
    """State of `shrink_by_half_space`."""

    count: jax.Array  # updates so far, int32 []


@factory
def shrink_by_half_space(
    shrinkage: Rate = 1e-4,
    *,
    eps: Hyper = 0.0,
    warmup: Hyper = 0,
    axes: tuple[int, ...] = (-1,),
) -> Transform:
    r"""Shorten every group of the updated parameters, and set it to zero if it turned around.

    $$\hat p = p + \Delta - \mathrm{shrinkage} \, \frac{p_g}{\lVert p_g \rVert}, \qquad
      u = \begin{cases} -p_g & \langle \hat p_g, p_g \rangle < \epsilon \lVert p_g \rVert^2
      \text{ or } p_g = 0 \\ \hat p_g - p_g & \text{else} \end{cases}$$

    Args:
        shrinkage: the norm that every group loses in one update, in units of the parameters:
            the learning rate times the factor of the penalty; a number, or a schedule of the
            number of updates made before this one.
        eps: fraction of its length that a group must keep along itself, below 1; the higher, the
            more groups become zero.
        warmup: updates in which no group is set to zero or kept there.
        axes: those that index the groups; all others are inside a group. `(-1,)` are the
            units of a kernel `[..., in, out]`.

    Needs: params. Stands last in a chain.
    State: `0` bytes a leaf, `4` once.
    Flops: at most `32*size` a leaf, `4` once.
    Paper: Chen and others, "Only Train Once: A One-Shot Neural Network Training And Pruning
        Framework", arXiv:2107.07467, Algorithm 2.
    Departure: groups are slices of one leaf. The paper joins a unit's weights, bias and
        normalization, so that its output is zero when they are.
    Limits: a group that is zero after warm-up stays so. Leaves of fewer than two axes pass as
        they are. A group is exactly zero where the updates have the dtype of the parameters
        or a wider one. A non-finite entry counts as zero.

    >>> tx = gk.shrink_by_half_space(0.0)
    >>> p, u = jnp.array([[1.0, 1.0]]), jnp.array([[-0.5, -1.5]])
    >>> (p + tx.update(u, tx.init(p), p)[0]).tolist()
    [[0.5, 0.0]]
    """
    check.nonnegative("shrink_by_half_space", shrinkage=shrinkage, warmup=warmup)
    check.interval("shrink_by_half_space", "[0, 1)", eps=eps)

    def init(params: Params) -> HalfSpaceState:
        del params
        return HalfSpaceState(jnp.zeros([], jnp.int32))

    def update(
        updates: Updates, state: HalfSpaceState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, HalfSpaceState]:
        del extra
        check.given("shrink_by_half_space", params)
        lost_norm = rate.at(shrinkage, state.count)
        warm = state.count.astype(jnp.float32) < jnp.asarray(warmup, jnp.float32)

        def shrink(u: jax.Array, p: jax.Array) -> jax.Array:
            if u.ndim < 2:
                return u
            p = p.astype(u.dtype)
            group_axes = {axis % u.ndim for axis in axes}
            inside = tuple(axis for axis in range(u.ndim) if axis not in group_axes)
            norm = norms.along(p, inside)
            unit = p / jnp.where(norm > 0, numbers.divisible(norm), 1)
            trial = (u - lost_norm * unit).astype(u.dtype)
            # the length of p + trial along p, in units of p
            along = norm + jnp.sum(trial * unit, inside, keepdims=True)
            gone = (along < jnp.asarray(eps, u.dtype) * norm) | (norm == 0)
            return jnp.where(gone & ~warm, -p, trial)

        u = jax.tree.map(shrink, numbers.read(updates), params)
        return numbers.like(u, updates), HalfSpaceState(numbers.increment(state.count))

    return transform(init, update)
