"""PowerSGD's basis: one step of subspace iteration from the last basis."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import random
from gradkit._core.matrix import linalg
from gradkit.subspace import bases
from gradkit.subspace.parts import Basis, BasisState


def subspace_iteration() -> Basis:
    """One step of subspace iteration from the last basis, `orth(g g^T p)`; the first is random.

    Columns keep their order and sign while the gradient is steady, and do not change where it is
    zero.

    Paper: Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression
        for Distributed Optimization", arXiv:1905.13727, Algorithm 1.
    """

    def init(shape: tuple[int, ...], dtype: Any, key: Any) -> jax.Array:
        return linalg.orthonormal(random.normals(key, shape, dtype))

    def renew(state: BasisState, g: jax.Array, key: Any) -> jax.Array:
        p = state.data
        moved = linalg.orthonormal(bases.factored(g @ (g.mT @ p)))
        return jnp.where(bases.nonzero(g), moved, p)

    return Basis(init, bases.each(renew), bases.itself)
