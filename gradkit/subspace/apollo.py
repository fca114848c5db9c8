"""APOLLO's norm matching: the gradient, scaled as `inner` scales a projection of it."""

from collections.abc import Callable

import jax

from gradkit._core import check, norms, tree
from gradkit._core.factory import part
from gradkit._core.types import Scalar
from gradkit.subspace.norm_growth import norm_growth_limiter, norm_of_rms, zero_norm
from gradkit.subspace.parts import Projected, Residual

Axes = int | tuple[int, ...]


def channelwise(x: Projected) -> Axes:
    """The axis for one factor per column, or one per row if the columns are projected."""
    return x.axis


def tensorwise(x: Projected) -> Axes:
    """The axes for one factor per matrix."""
    return -2, -1


@part
def norm_matched(
    scale: Scalar = 1.0,
    *,
    growth: Scalar = 1.01,
    eps: Scalar = 1e-8,
    floor: Scalar = 0.0,
    axes: Callable[[Projected], Axes] = channelwise,
) -> Residual:
    r"""`u = scale s`: the whole gradient, scaled as `inner` scales the norms of its projection.

    $$s = g \, \mathrm{diag}\left(
      \frac{\lVert d[:, i] \rVert}{\lVert r[:, i] \rVert + \epsilon}\right)$$

    The `norm_growth_limiter` limits the norm of $s$.

    Args:
        scale: factor on the whole direction.
        growth: by what factor the norm of $s$ may grow in one update; `inf` is no limit.
        eps: added to the norms of the columns of $r$ and to the last norm of $s$.
        floor: the RMS up to which $s$ grows freely, in units of what `inner` returns; at 0, one
            small gradient shrinks $s$ for hundreds of updates.
        axes: which entries share a factor: `channelwise`, or `tensorwise` as in APOLLO-Mini.

    Paper: Zhu and others, "APOLLO: SGD-like Memory, AdamW-level Performance",
        arXiv:2412.05270, Algorithm 1.
    """
    name = "subspace.norm_matched"
    check.nonnegative(name, scale=scale, eps=eps, floor=floor)
    check.positive(name, growth=growth)

    def combine(x: Projected, last: jax.Array) -> tuple[jax.Array, jax.Array]:
        d, r, g = norms.finite_along((x.d, axes(x)), (x.r, axes(x)), (x.raw, x.axis))
        gain = tree.ratio(d, r + eps)
        full_norm = norms.along(gain * g, (-2, -1))
        lowest = norm_of_rms(floor, x.g)
        shrink, norm = norm_growth_limiter(full_norm, last, growth, eps, lowest)
        return x.g * (scale * shrink * gain), norm

    return Residual(zero_norm, combine)
