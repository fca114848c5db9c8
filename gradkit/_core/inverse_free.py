"""Factors `A` and `B` whose `A A^T` and `B B^T` learn to be inverses of curvatures, one for each side.

A matrix is `[*batch, rows, cols]`, its factors `[*batch, rows, rows]` and `[*batch, cols, cols]`;
a side without one is as if it had the identity, which stays.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import norms
from gradkit._core.matrix import kronecker, roots
from gradkit._core.types import Scalar

Factor = Any  # an array, or `roots.NONE`


def natural(
    g: jax.Array, a: Factor, b: Factor, damping: Scalar, covariances: Any = None
) -> tuple[Factor, Factor]:
    r"""The natural gradients of both factors: half of how far curvature is from the identity.

    $$n_A = \tfrac12 \big( \tfrac{1}{d_B} (\mathrm{damping} \; \mathrm{tr}(B^T B) A^T A + S_A)
      - I \big)$$

    and $n_B$ likewise, with $S_A$ and $S_B$ what each factor sees.
    """

    def far(seen: Factor, own: Factor, other: Factor, length: int) -> Factor:
        if kronecker.is_none(own):
            return kronecker.NONE
        trace = length if kronecker.is_none(other) else _trace(other.mT @ other)
        known = damping * trace * (own.mT @ own)
        curvature = (known + seen) / max(length, 1)
        return (curvature - roots.identity(own)) / 2

    rows, cols = _seen(g, a, b, covariances)
    return far(rows, a, b, g.shape[-1]), far(cols, b, a, g.shape[-2])


def moved(factor: jax.Array, move: jax.Array, pull: Scalar) -> jax.Array:
    """The factor after a move, at most `pull` long; as it was where that is not finite."""
    length = norms.along(move, (-2, -1))
    share = jnp.asarray(pull, factor.dtype) / jnp.maximum(length, 1)
    return finite(factor - share * (factor @ move), factor)


def finite(new: jax.Array, old: jax.Array) -> jax.Array:
    """`new`, or each matrix of `old` where that of `new` has an entry that is not finite."""
    fine = jnp.all(jnp.isfinite(new), (-2, -1), keepdims=True)
    return jnp.where(fine, new, old)


def _seen(
    g: jax.Array, a: Factor, b: Factor, covariances: Any
) -> tuple[Factor, Factor]:
    r"""$H H^T$ and $H^T H$ of sides with a factor, from a gradient or from the covariances that it stands for."""
    if covariances is None:
        h = _between(a, g, b)
        rows = kronecker.NONE if kronecker.is_none(a) else h @ h.mT
        return rows, kronecker.NONE if kronecker.is_none(b) else h.mT @ h
    u, v = (_between(x, c, x) for x, c in zip((a, b), covariances))
    return _trace(v) * u, _trace(u) * v


def _between(a: Factor, x: jax.Array, b: Factor) -> jax.Array:
    r"""$A^T x B$."""
    x = x if kronecker.is_none(a) else a.mT @ x.astype(a.dtype)
    return x if kronecker.is_none(b) else x.astype(b.dtype) @ b


def _trace(x: jax.Array) -> jax.Array:
    return jnp.trace(x, axis1=-2, axis2=-1)[..., None, None]
