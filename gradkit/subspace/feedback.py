"""PowerSGD's error feedback: the residual is added to the next gradient."""

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers
from gradkit._core.factory import part
from gradkit._core.types import Scalar
from gradkit.subspace.parts import Projected, Residual


@part
def error_feedback(scale: Scalar = 1.0) -> Residual:
    r"""`u = scale p d`: the residual is kept, and added to the next gradient.

    $$a_t = g_t + e_{t-1}, \quad r_t = P_t^T a_t, \quad d_t = \mathrm{inner}(r_t), \qquad
      e_t = a_t - P_t r_t$$

    The sum of all $P r$ is the sum of all $g$, less the last $e$. The basis is found from $a$.

    Args:
        scale: factor on what `inner` returns.

    Paper: Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression
        for Distributed Optimization", arXiv:1905.13727, Algorithm 2.
    Departure: the paper's momentum is given $P r$; `inner` is given $r$. LDAdam,
        arXiv:2410.16103, also adds to $e$ what its moments lose in a change of basis; here that
        is lost.
    Limits: $e$ takes as much memory as the parameters. It needs orthonormal bases that are renewed:
        along directions that no basis has, it grows for ever.
    """
    check.nonnegative("subspace.error_feedback", scale=scale)

    def add_feedback(g: jax.Array, e: jax.Array) -> jax.Array:
        return numbers.finite(g) + e

    def combine(x: Projected, e: jax.Array) -> tuple[jax.Array, jax.Array]:
        return x.project_back(scale * x.d), x.g - x.project_back(x.r)

    return Residual(jnp.zeros, combine, add_feedback)
