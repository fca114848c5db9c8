"""GaLore's basis: the leading singular vectors of the gradient."""

import functools
from collections.abc import Sequence
from typing import Any

import jax

from gradkit._core.matrix import stacks
from gradkit.subspace import bases
from gradkit.subspace.parts import Basis, BasisState


def svd() -> Basis:
    """The leading left singular vectors of the gradient, largest singular value first.

    An eigendecomposition of the Gram matrix of the shorter side finds them. A weighted sum of
    their entries fixes their signs.

    Paper: Zhao and others, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
        Projection", arXiv:2403.03507, Algorithm 1.
    """

    def renew(
        states: Sequence[BasisState], gs: Sequence[jax.Array], key: Any
    ) -> list[jax.Array]:
        rank = max((state.data.shape[-1] for state in states), default=0)
        leading = functools.partial(bases.left_singular_vectors, rank=rank)
        return stacks.map_shapes(leading, bases.factored(gs))

    return Basis(bases.first_axes, renew, bases.itself, draws=False, lazy=True)
