"""How a few directions of a matrix are found where its gradient is largest."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import derivative, norms, numbers, random
from gradkit._core.matrix import linalg, roots, stacks

Kept = jax.Array  # what is kept of a basis, [*batch, ..., rank]
OVERSAMPLE = 8  # columns that a range finder draws besides the rank


class Basis(NamedTuple):
    """How a basis `p` is found, `[*batch, seen, rank]`, from `g`, `[*batch, seen, other]`."""

    start: Callable[[tuple[int, ...], Any, Any], Kept]  # shape of `p`, dtype, key
    renew: Callable[[Sequence[Kept], Sequence[jax.Array], Any], list[Kept]]  # and key
    vectors: Callable[[Kept, int, Any], jax.Array]  # kept, seen, dtype: `p`
    draws: bool = True  # whether it needs a key
    waits: bool = False  # from a start of `none`, for a `g` that is not zero


def svd() -> Basis:
    """The first left singular vectors of the gradient, largest value first.

    Signs are fixed, by a sum of their entries. They cost an eigendecomposition of the Gram
    matrix of the shorter side.

    Paper: Zhao and others, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
        Projection", arXiv:2403.03507, Algorithm 1.
    """

    def renew(kept: Sequence[Kept], gs: Sequence[jax.Array], key: Any) -> list[Kept]:
        rank = max((k.shape[-1] for k in kept), default=0)
        return stacks.map_shapes(functools.partial(leading, rank=rank), factored(gs))

    return Basis(none, renew, itself, draws=False, waits=True)


def randomized_svd() -> Basis:
    r"""About the first left singular vectors, found in the range of a few columns.

    $$Q = \mathrm{orth}(g \Omega), \quad \Omega_{ij} \sim U(-1, 1), \qquad
      P = Q \; (\text{first rank left singular vectors of } Q^T g)$$

    with `rank + 8` columns of $\Omega$, as $g \Omega$ spans nearly what they span.

    Paper: Halko, Martinsson and Tropp, "Finding structure with randomness: Probabilistic
        algorithms for constructing approximate matrix decompositions", arXiv:0909.4061,
        Algorithms 4.1 and 5.1.
    Departure: the paper's `Omega` is normal; uniform numbers span as much and cost less.
    """

    def renew(kept: Kept, g: jax.Array, key: jax.Array) -> Kept:
        g = factored(g)
        columns = min(kept.shape[-1] + OVERSAMPLE, *g.shape[-2:])
        seeds = jax.random.bits(key, (*g.shape[:-2], columns), jnp.uint32)
        q = linalg.orthonormal(g @ random.uniform(seeds, g.shape[-1], g.dtype))
        gram = roots.gram(laid_out(q.mT) @ g)
        inside, known = linalg.largest_eigenvectors(gram, kept.shape[-1])
        return linalg.signed(linalg.completed(q @ inside, known))

    return Basis(none, each(renew), itself, waits=True)


def subspace_iteration() -> Basis:
    """One step of subspace iteration from the basis before: `orth(g g^T p)`, the first random.

    Columns keep their order and sign while the gradient is steady, and stay where it is zero.

    Paper: Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression
        for Distributed Optimization", arXiv:1905.13727, Algorithm 1.
    """

    def start(shape: tuple[int, ...], dtype: Any, key: Any) -> Kept:
        return linalg.orthonormal(random.normals(key, shape, dtype))

    def renew(kept: Kept, g: jax.Array, key: Any) -> Kept:
        moved = linalg.orthonormal(factored(g @ (g.mT @ kept)))
        return jnp.where(nonzero(g), moved, kept)

    return Basis(start, each(renew), itself)


def leading(g: jax.Array, rank: int) -> jax.Array:
    """The first `rank` left singular vectors, from the Gram matrix of the shorter side."""
    rows, cols = g.shape[-2:]
    if rows <= cols:
        return linalg.principal_basis(g, rank)
    left = unit(g) @ linalg.principal_basis(g.mT, rank)
    sizes = norms.along(left, -2)
    known = (
        linalg.above_rounding(sizes, jnp.max(sizes, -1, keepdims=True, initial=0)) > 0
    )
    return linalg.signed(linalg.completed(left, known))


def factored(x: Any) -> Any:
    """The tree `x`, of which a factorization is taken."""
    return derivative.refuse("subspace.project", x)


def laid_out(x: jax.Array) -> jax.Array:
    """`x` in memory as it is in name: products of what is transposed are slow on a CPU."""
    return jax.lax.optimization_barrier(x)


def unit(g: jax.Array) -> jax.Array:
    """`g` with its largest entry of size 1."""
    return g / numbers.divisible(jnp.max(jnp.abs(g), initial=0))


def none(shape: tuple[int, ...], dtype: Any, key: Any = None) -> Kept:
    """No basis yet: minus the first axes, which no basis that is `linalg.signed` has."""
    return jnp.broadcast_to(-jnp.eye(*shape[-2:], dtype=dtype), shape)


def is_none(kept: Kept) -> jax.Array:
    """Whether each matrix has no basis yet, `[*batch, 1, 1]`."""
    return jnp.all(kept == none(kept.shape, kept.dtype), (-2, -1), keepdims=True)


def may_be_none(kept: Kept) -> jax.Array:
    """The same by the first entry alone, which is cheap; it may be so by chance."""
    return kept[..., :1, :1] == -1


def nonzero(g: jax.Array) -> jax.Array:
    """Whether each matrix has a finite entry other than zero, `[*batch, 1, 1]`."""
    return jnp.any(numbers.finite(g) != 0, (-2, -1), keepdims=True)


def itself(kept: Kept, seen: int, dtype: Any) -> jax.Array:
    """What is kept is the basis."""
    return kept


def each(renew: Callable[..., Kept]) -> Callable[..., list[Kept]]:
    """`renew` of one leaf, as that of many: `g` on the scale of 1, and a key for each."""

    def renew_all(kept: Sequence[Kept], gs: Sequence[jax.Array], key: Any):
        def one(i: int, k: Kept, g: jax.Array) -> Kept:
            own = None if key is None else jax.random.fold_in(key, i)
            return renew(k, unit(g), own)

        return [one(i, k, g) if g.size else k for i, (k, g) in enumerate(zip(kept, gs))]

    return renew_all
