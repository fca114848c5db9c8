"""Gradients as long as a transform made the few directions of them that it has seen."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, tree
from gradkit._core.factory import part
from gradkit._core.types import Scalar
from gradkit.subspace.residuals import Projected, Residual

Axes = int | tuple[int, ...]


@part
def fira_residual(
    scale: Scalar = 1.0,
    *,
    growth: Scalar = 1.01,
    eps: Scalar = 1e-8,
    floor: Scalar = 0.0,
) -> Residual:
    r"""`u = scale p d + s`: the rest follows, as `inner` scaled what it saw of each column.

    $$s = (g - \mathrm{scale} \, P r) \, \mathrm{diag}\left(
      \frac{\lVert d[:, i] \rVert}{\lVert r[:, i] \rVert + \epsilon}\right)$$

    of a norm that grows slowly.

    Args:
        scale: times what `inner` returns, and the part of the gradient that $s$ leaves out.
        growth: how much longer $s$ may get in one update, as a factor; `inf` is no limit.
        eps: added to the norms of the columns of $r$ and of the last $s$.
        floor: the root mean square up to which $s$ may always grow, in units of what `inner`
            returns; without one a single small gradient is felt for hundreds of updates.

    Paper: Chen and others, "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
        Constraint?", arXiv:2410.01623, Algorithm 1.
    """
    name = "subspace.fira_residual"
    check.nonnegative(name, scale=scale, eps=eps, floor=floor)
    check.positive(name, growth=growth)

    def combine(x: Projected, last: jax.Array) -> tuple[jax.Array, jax.Array]:
        d, r = norms.of_finite((x.d, x.side), (x.r, x.side))
        s = (x.g - x.lift(scale * x.r)) * tree.ratio(d, r + eps)
        (whole,) = norms.of_finite((s, (-2, -1)))
        shrink, norm = norm_growth_limiter(whole, last, growth, eps, _whole(floor, x))
        return x.lift(scale * x.d) + shrink * s, norm

    return Residual(_one_norm, combine)


def channelwise(x: Projected) -> Axes:
    """Each column of its own, or each row if the rows are the long side."""
    return x.side


def tensorwise(x: Projected) -> Axes:
    """Each matrix as a whole."""
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
    r"""The whole gradient, as long as `inner` made what it saw, growing slowly.

    $$s = g \, \mathrm{diag}\left(
      \frac{\lVert d[:, i] \rVert}{\lVert r[:, i] \rVert + \epsilon}\right),
      \qquad u = \mathrm{scale} \; s$$

    Args:
        scale: times the whole direction.
        growth: how much longer $s$ may get in one update, as a factor; `inf` is no limit.
        eps: added to the norms of the columns of $r$ and of the last $s$.
        floor: the root mean square up to which $s$ may always grow, in units of what `inner`
            returns; without one a single small gradient is felt for hundreds of updates.
        axes: what has one length: `by_columns`, or `by_matrices`.

    Paper: Zhu and others, "APOLLO: SGD-like Memory, AdamW-level Performance",
        arXiv:2412.05270, Algorithm 1.
    """
    name = "subspace.norm_matched"
    check.nonnegative(name, scale=scale, eps=eps, floor=floor)
    check.positive(name, growth=growth)

    def combine(x: Projected, last: jax.Array) -> tuple[jax.Array, jax.Array]:
        d, r, g = norms.of_finite((x.d, axes(x)), (x.r, axes(x)), (x.given, x.side))
        gain = tree.ratio(d, r + eps)
        whole = norms.along(gain * g, (-2, -1))
        shrink, norm = norm_growth_limiter(whole, last, growth, eps, _whole(floor, x))
        return x.g * (scale * shrink * gain), norm

    return Residual(_one_norm, combine)


def norm_growth_limiter(
    norm: jax.Array,
    last: jax.Array,
    growth: Scalar,
    eps: Scalar,
    floor: Scalar = 0.0,
) -> tuple[jax.Array, jax.Array]:
    """What keeps a `norm` to at most `growth` times the `last`, as a factor; and that norm.

    Up to `floor`, and from the zero it begins with, it may grow freely; later a zero leaves the
    last as it was.
    """
    limit = jnp.maximum(growth * (last + eps), floor)
    kept = jnp.where(last > 0, jnp.minimum(limit, norm), norm).astype(last.dtype)
    moves = norm > 0
    factor = jnp.where(moves, kept / jnp.where(moves, norm, 1), 1)
    return factor, jnp.where(moves, kept, last)


def _whole(rms: Scalar, x: Projected) -> jax.Array:
    """The norm of a matrix of this root mean square."""
    return jnp.asarray(rms, x.g.dtype) * math.prod(x.g.shape[-2:]) ** 0.5


def _one_norm(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jnp.zeros((*shape[:-2], 1, 1), dtype)
