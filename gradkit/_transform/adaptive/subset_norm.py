"""Subset norm: Adam's denominator with one number for many entries, under any numerator."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers, paths, rate, shard, tree
from gradkit._core.condition import on_axes_of
from gradkit._core.factory import factory
from gradkit._core.norms import finite_along
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


class SubsetNormState(NamedTuple):
    """State of `scale_by_subset_norm`, and that of the numerator."""

    count: jax.Array  # updates so far, int32 []
    roots: Updates  # root of the EMA of the squared norm, [subsets] of every leaf
    inner: optax.OptState


@factory
def scale_by_subset_norm(
    inner: AnyTransform, *, b2: Hyper = 0.999, eps: Rate = 1e-6
) -> Transform:
    r"""Divide the direction of `inner` by the RMS over time of the norm of an entry's subset.

    $$v_{t,i} = b_2 v_{t-1,i} + (1 - b_2) \lVert g_{t,i} \rVert^2, \qquad
      u_{t,i} = \frac{\mathrm{inner}(g_t)_i}{\sqrt{v_{t,i} / (1 - b_2^t)} + \epsilon}$$

    A subset `i` is `k` entries in a row of a leaf, `k` the largest divisor of its size that is
    at most the root of its size.

    Args:
        inner: makes the numerator from the gradient, for example an EMA.
        b2: decay of the EMA of the squared norm of a subset.
        eps: added to the root, in units of the gradient; a number or a schedule.

    Needs: what `inner` needs.
    State: `4*size / max(k for k in range(1, size + 1) if size % k == 0 and k*k <= size)`
        bytes a leaf, `4` once, and the state of `inner`.
    Flops: at most `20*size + 64` a leaf, and those of `inner`.
    Paper: Nguyen and Nguyen, "Efficient Adaptive Optimization via Subset-Norm and
        Subspace-Momentum: Fast, Memory-Reduced Training with Convergence Guarantees",
        arXiv:2411.07120, AdamSN.
    Departure: the authors' code adds `eps` before bias correction. The state keeps the root of
        `v`, since `v` could overflow or underflow.
    Limits: a sum, not a mean: entries move `sqrt(k)` times less than Adam's. Sharded leaves are
        gathered, since subsets may cross shards.

    >>> tx = gk.scale_by_subset_norm(optax.identity(), eps=0.0)  # four entries, by twos
    >>> u, _ = tx.update(jnp.array([3.0, 4.0, 0.0, 9.0]), tx.init(jnp.zeros(4)))
    >>> print(u.round(3))
    [0.6 0.8 0.  1. ]
    """
    check.interval("scale_by_subset_norm", "[0, 1)", b2=b2)
    check.nonnegative("scale_by_subset_norm", eps=eps)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SubsetNormState:
        def start(p: jax.Array) -> jax.Array:
            return on_axes_of(
                jnp.zeros(p.size // subset(p.size), numbers.wide_dtype(p)), p
            )

        roots = jax.tree.map(start, paths.unboxed(params))
        return SubsetNormState(
            jnp.zeros([], jnp.int32), roots, inner.init(numbers.wide(params))
        )

    def update(
        updates: Updates, state: SubsetNormState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, SubsetNormState]:
        g = numbers.read(updates)
        step = numbers.increment(state.count)
        norms = jax.tree.map(subset_norms, paths.unboxed(numbers.wide(updates)))
        roots = tree.ema_rms(b2, state.roots, norms)
        direction, inner_state = inner.update(
            g, state.inner, numbers.wide(params), **extra
        )
        floor = rate.at(eps, state.count)

        def divide(m: jax.Array, root: jax.Array) -> jax.Array:
            k = subset(m.size)
            spread = jnp.broadcast_to(root[:, None], (m.size // k, k))
            spread = spread.ravel().reshape(m.shape)  # in two steps for Explicit meshes
            return tree.ratio(m, shard.alike(spread, m) + floor)

        u = paths.map_unboxed(
            divide, direction, tree.bias_corrected_rms(roots, b2, step)
        )
        return numbers.like(u, updates), SubsetNormState(step, roots, inner_state)

    return transform(init, update)


def subset(size: int) -> int:
    """The largest divisor of `size` that is at most its root."""
    divisors = (k for k in range(math.isqrt(size), 0, -1) if size % k == 0)
    return next(divisors, 1)


def subset_norms(g: jax.Array) -> jax.Array:
    """The norms of the finite entries of a leaf's subsets, `[subsets]`."""
    k = subset(g.size)
    rows = shard.whole(g).ravel().reshape(g.size // k, k)
    return finite_along((rows, 1))[0][:, 0]
