"""Fira's residual, scaled as `inner` scales the projection."""

import jax

from gradkit._core import check, norms, tree
from gradkit._core.factory import part
from gradkit._core.types import Scalar
from gradkit.subspace.norm_growth import norm_growth_limiter, norm_of_rms, zero_norm
from gradkit.subspace.parts import Projected, Residual


@part
def fira_residual(
    scale: Scalar = 1.0,
    *,
    growth: Scalar = 1.01,
    eps: Scalar = 1e-8,
    floor: Scalar = 0.0,
) -> Residual:
    r"""`u = scale p d + s`: the residual, scaled column by column as `inner` scales the projection.

    $$s = (g - \mathrm{scale} \, P r) \, \mathrm{diag}\left(
      \frac{\lVert d[:, i] \rVert}{\lVert r[:, i] \rVert + \epsilon}\right)$$

    The `norm_growth_limiter` limits the norm of $s$.

    Args:
        scale: factor on what `inner` returns, and on $P r$ where it is subtracted from $g$.
        growth: by what factor the norm of $s$ may grow in one update; `inf` is no limit.
        eps: added to the norms of the columns of $r$ and to the last norm of $s$.
        floor: the RMS up to which $s$ grows freely, in units of what `inner` returns; at 0, one
            small gradient shrinks $s$ for hundreds of updates.

    Paper: Chen and others, "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
        Constraint?", arXiv:2410.01623, Algorithm 1.
    """
    name = "subspace.fira_residual"
    check.nonnegative(name, scale=scale, eps=eps, floor=floor)
    check.positive(name, growth=growth)

    def combine(x: Projected, last: jax.Array) -> tuple[jax.Array, jax.Array]:
        d, r = norms.finite_along((x.d, x.axis), (x.r, x.axis))
        s = (x.g - x.project_back(scale * x.r)) * tree.ratio(d, r + eps)
        (full_norm,) = norms.finite_along((s, (-2, -1)))
        lowest = norm_of_rms(floor, x.g)
        shrink, norm = norm_growth_limiter(full_norm, last, growth, eps, lowest)
        return x.project_back(scale * x.d) + shrink * s, norm

    return Residual(zero_norm, combine)
