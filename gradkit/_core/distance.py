"""How far parameters are from where training began, and the root of all squared gradient norms."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import numbers
from gradkit._core.derivative import hypot
from gradkit._core.numbers import Tree

Norm = Callable[[Tree], jax.Array]  # of a tree, or of each of its leaves


def from_start(
    state: Any, g: Tree, params: Tree, first_distance: Any, norm: Norm
) -> tuple[Tree, jax.Array, jax.Array]:
    """The first parameters, the largest distance from them, and the root of the sum of squares.

    `state` has these as `anchor`, `distance` and `length`, and a `count`. The distance before the
    first step is `first_distance * (1 + norm(params))`.
    """
    p, start = numbers.like(params, state.anchor), state.count == 0
    anchor = jax.tree.map(lambda x, x0: jnp.where(start, x, x0), p, state.anchor)
    moved = jax.tree.map(lambda x, x0: jnp.where(start, x, x - x0), p, anchor)
    far = norm(moved)
    far = jnp.where(start, first_distance * (1 + far), far)
    distance = jnp.maximum(state.distance, far.astype(state.distance.dtype))
    length = hypot(state.length, norm(g).astype(distance.dtype))
    return anchor, distance, jnp.minimum(length, jnp.finfo(length.dtype).max)
