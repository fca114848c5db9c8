"""Residuals without a memory: discarded (GaLore), or passed on (subspace momentum)."""

import jax

from gradkit._core import check
from gradkit._core.factory import part
from gradkit._core.types import Scalar
from gradkit.subspace.parts import Memory, Projected, Residual, no_memory


@part
def discard_residual(scale: Scalar = 1.0) -> Residual:
    """`u = scale p d`: the parameters move in the span of the basis only.

    Args:
        scale: factor on what `inner` returns.

    Paper: Zhao and others, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
        Projection", arXiv:2403.03507.
    """
    check.nonnegative("subspace.discard_residual", scale=scale)

    def combine(x: Projected, memory: Memory) -> tuple[jax.Array, Memory]:
        return x.project_back(scale * x.d), memory

    return Residual(no_memory, combine)


def pass_residual() -> Residual:
    """`u = p d + (g - p r)`: the residual is passed on as it is.

    Paper: Nguyen and Nguyen, "Efficient Adaptive Optimization via Subset-Norm and
        Subspace-Momentum", arXiv:2411.07120.
    """

    def combine(x: Projected, memory: Memory) -> tuple[jax.Array, Memory]:
        return x.g + x.project_back(x.d - x.r), memory

    return Residual(no_memory, combine)
