"""The randomized SVD of Halko, Martinsson and Tropp: approximate leading singular vectors."""

import jax
import jax.numpy as jnp

from gradkit._core import random
from gradkit._core.matrix import linalg, memory, roots
from gradkit.subspace import bases
from gradkit.subspace.parts import Basis, BasisState

OVERSAMPLING = 8  # columns of the sketch besides the rank


def randomized_svd() -> Basis:
    r"""Approximate leading left singular vectors, found in the range of a random sketch.

    $$Q = \mathrm{orth}(g \Omega), \quad \Omega_{ij} \sim U(-1, 1), \qquad
      P = Q \; (\text{first rank left singular vectors of } Q^T g)$$

    $\Omega$ has `rank + 8` columns. The columns of $g \Omega$ span nearly the space that the
    leading singular vectors span.

    Paper: Halko, Martinsson and Tropp, "Finding structure with randomness: Probabilistic
        algorithms for constructing approximate matrix decompositions", arXiv:0909.4061,
        Algorithms 4.1 and 5.1.
    Departure: the paper's `Omega` is normal; uniform numbers serve as well and cost less.
    """

    def renew(state: BasisState, g: jax.Array, key: jax.Array) -> jax.Array:
        g, rank = bases.factored(g), state.data.shape[-1]
        columns = min(rank + OVERSAMPLING, *g.shape[-2:])
        seeds = jax.random.bits(key, (*g.shape[:-2], columns), jnp.uint32)
        q = linalg.orthonormal(g @ random.uniform(seeds, g.shape[-1], g.dtype))
        gram = roots.gram(memory.contiguous(q.mT) @ g)
        inside, significant = linalg.largest_eigenvectors(gram, rank)
        return linalg.signed(linalg.completed(q @ inside, significant))

    return Basis(bases.first_axes, bases.each(renew), bases.itself, lazy=True)
