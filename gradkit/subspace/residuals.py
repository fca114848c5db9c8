"""What becomes of a gradient of which a transform has seen a few directions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers
from gradkit._core.factory import part
from gradkit._core.types import Scalar

Memory = Any  # what a part remembers


class Projected(NamedTuple):
    """One leaf at one update, upright: `[*batch, rows, cols]`."""

    g: jax.Array  # the gradient
    p: jax.Array  # the basis, [*batch, rows or cols, rank]
    r: jax.Array  # the gradient in the basis
    d: jax.Array  # what `inner` made of `r`
    side: int  # the axis of `g` that is seen in the basis, and of `r` that is the rank
    given: jax.Array  # `g` before its non-finite entries counted as zero

    def lift(self, x: jax.Array) -> jax.Array:
        """What `x` is outside the basis: `p x`, or `x p^T`."""
        return x @ self.p.mT if self.side == -1 else self.p @ x


class Residual(NamedTuple):
    """What becomes of a gradient that `inner` has seen in a basis.

    `start` makes what is remembered of a leaf of shape `[*batch, rows, cols]` and of a dtype; it is
    None where nothing is.
    """

    start: Callable[[tuple[int, ...], Any], Memory] | None
    combine: Callable[[Projected, Memory], tuple[jax.Array, Memory]]
    meet: Callable[[jax.Array, Memory], jax.Array] = lambda g, memory: g  # to be seen


@part
def discard_residual(scale: Scalar = 1.0) -> Residual:
    """`u = scale p d`: what `inner` does not see does not move.

    Args:
        scale: times what `inner` returns.

    Paper: Zhao and others, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
        Projection", arXiv:2403.03507.
    """
    check.nonnegative("subspace.discard_residual", scale=scale)

    def combine(x: Projected, memory: Memory) -> tuple[jax.Array, Memory]:
        return x.lift(scale * x.d), memory

    return Residual(None, combine)


def pass_residual() -> Residual:
    """`u = g + p (d - r)`: what `inner` does not see moves as it is.

    Paper: Nguyen and Nguyen, "Efficient Adaptive Optimization via Subset-Norm and
        Subspace-Momentum", arXiv:2411.07120.
    """

    def combine(x: Projected, memory: Memory) -> tuple[jax.Array, Memory]:
        return x.g + x.lift(x.d - x.r), memory

    return Residual(None, combine)


@part
def error_feedback(scale: Scalar = 1.0) -> Residual:
    r"""`u = scale p d`: what `inner` does not see is kept, and seen with later gradients.

    $$a_t = g_t + e_{t-1}, \quad r_t = P_t^T a_t, \quad d_t = \mathrm{inner}(r_t), \qquad
      e_t = a_t - P_t r_t$$

    so that sums of $P r$ are sums of $g$ but for $e$. The basis is renewed from $a$.

    Args:
        scale: times what `inner` returns.

    Paper: Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression
        for Distributed Optimization", arXiv:1905.13727, Algorithm 2.
    Departure: the paper's momentum sees $P r$, `inner` sees $r$. LDAdam, arXiv:2410.16103,
        also keeps in $e$ what its averages lose in a change of basis; here they lose it.
    Limits: $e$ is as large as the parameters. It needs orthonormal bases, and new ones: along
        what no basis holds it grows for ever.
    """
    check.nonnegative("subspace.error_feedback", scale=scale)

    def meet(g: jax.Array, e: jax.Array) -> jax.Array:
        return numbers.finite(g) + e

    def combine(x: Projected, e: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x.lift(scale * x.d), x.g - x.lift(x.r)

    return Residual(jnp.zeros, combine, meet)
