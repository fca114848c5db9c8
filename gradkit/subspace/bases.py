"""Helpers that several bases share."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import derivative, norms, numbers
from gradkit._core.matrix import linalg
from gradkit.subspace.parts import BasisState


def first_axes(shape: tuple[int, ...], dtype: Any, key: Any) -> jax.Array:
    """The first `rank` coordinate axes, the basis before one is found."""
    return jnp.broadcast_to(jnp.eye(*shape[-2:], dtype=dtype), shape)


def itself(data: jax.Array, projected: int, dtype: Any) -> jax.Array:
    """`data`, for bases whose data are their vectors."""
    return data


def each(
    renew: Callable[[BasisState, jax.Array, Any], jax.Array],
) -> Callable[[Sequence[BasisState], Sequence[jax.Array], Any], list[jax.Array]]:
    """`renew` for all leaves, each with its own key, and with `g` scaled by `unit`."""

    def renew_all(
        states: Sequence[BasisState], gs: Sequence[jax.Array], key: Any
    ) -> list[jax.Array]:
        def renew_leaf(i: int, state: BasisState, g: jax.Array) -> jax.Array:
            leaf_key = None if key is None else jax.random.fold_in(key, i)
            return renew(state, unit(g), leaf_key) if g.size else state.data

        return [renew_leaf(i, *leaf) for i, leaf in enumerate(zip(states, gs))]

    return renew_all


def left_singular_vectors(g: jax.Array, rank: int) -> jax.Array:
    """The first `rank` left singular vectors, from the Gram matrix of the shorter side."""
    rows, cols = g.shape[-2:]
    if rows <= cols:
        return linalg.principal_basis(g, rank)
    left = unit(g) @ linalg.principal_basis(g.mT, rank)
    sizes = norms.along(left, -2)
    largest = jnp.max(sizes, -1, keepdims=True, initial=0)
    significant = linalg.above_rounding(sizes, largest) > 0
    return linalg.signed(linalg.completed(left, significant))


def unit(g: jax.Array) -> jax.Array:
    """`g`, scaled to a largest absolute value of 1."""
    return g / numbers.divisible(jnp.max(jnp.abs(g), initial=0))


def nonzero(g: jax.Array) -> jax.Array:
    """Whether each matrix has a finite entry other than zero, `[*batch, 1, 1]`."""
    return jnp.any(numbers.finite(g) != 0, (-2, -1), keepdims=True)


def factored(x: Any) -> Any:
    """The tree `x`, for a factorization; a derivative through it raises an error."""
    return derivative.refuse("subspace.project", x)
