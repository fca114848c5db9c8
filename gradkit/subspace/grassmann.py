"""GrassWalk's and GrassJump's bases: random steps on the Grassmann manifold of subspaces."""

import jax
import jax.numpy as jnp

from gradkit._core import check, random
from gradkit._core.condition import when
from gradkit._core.factory import part
from gradkit._core.matrix import lapack, linalg
from gradkit._core.types import Scalar
from gradkit.subspace import bases
from gradkit.subspace.parts import Basis, BasisState


@part
def grassmann_walk(angle: Scalar = 0.5) -> Basis:
    r"""A random walk along geodesics of the Grassmann manifold, from the leading singular vectors.

    $$X = \frac{\mathrm{angle}}{\sqrt m} (I - P P^T) Z, \quad Z_{ij} \sim N(0, 1), \quad
      X^T X = S^2, \qquad P \leftarrow \mathrm{orth}(P \cos S + X S^{-1} \sin S)$$

    Args:
        angle: about the largest angle between the old basis and the new one, in radians.

    Paper: Rajabi and others, "Randomized Gradient Subspaces for Efficient Large Language Model
        Training", arXiv:2510.01878, GrassWalk.
    """
    check.nonnegative("subspace.grassmann_walk", angle=angle)

    def renew(state: BasisState, g: jax.Array, key: jax.Array) -> jax.Array:
        def first(p: jax.Array) -> jax.Array:
            return bases.left_singular_vectors(bases.factored(g), p.shape[-1])

        def step(p: jax.Array) -> jax.Array:
            p = bases.factored(p)
            z = random.normals(key, p.shape, p.dtype)
            x = z - p @ (p.mT @ z)
            x = angle * x / jnp.sqrt(jnp.asarray(x.shape[-2], x.dtype))
            return linalg.orthonormal(geodesic(p, x))

        p, found = state
        begun = when(~jnp.all(found), first, p)
        walked = when(jnp.any(found), step, p)
        return jnp.where(found, walked, begun)

    return Basis(bases.first_axes, bases.each(renew), bases.itself, lazy=True)


def grassmann_jump() -> Basis:
    """A uniformly random subspace: `orth` of normal numbers.

    Paper: Rajabi and others, "Randomized Gradient Subspaces for Efficient Large Language Model
        Training", arXiv:2510.01878, GrassJump.
    """

    def renew(state: BasisState, g: jax.Array, key: jax.Array) -> jax.Array:
        p = state.data
        return linalg.orthonormal(random.normals(key, p.shape, p.dtype))

    return Basis(bases.first_axes, bases.each(renew), bases.itself)


def geodesic(p: jax.Array, x: jax.Array) -> jax.Array:
    """The end of the geodesic from the basis `p` with the velocity `x`, where `p^T x = 0`.

    `p cos(s) + x sin(s) / s` with `s` the root of `x^T x`.
    """
    squares, v = lapack.eigh(x.mT @ x)
    s = jnp.sqrt(jnp.maximum(squares, 0))[..., None, :]
    ratio = jnp.where(s > 0, jnp.sin(s) / jnp.where(s > 0, s, 1), 1)
    return (p @ (v * jnp.cos(s)) + x @ (v * ratio)) @ v.mT
