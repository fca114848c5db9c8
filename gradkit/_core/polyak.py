"""How far a loss is above its lower bound, and the step to where a model of it meets the bound."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import tree
from gradkit._core.derivative import root
from gradkit._core.numbers import Tree


def above(value: Any, lower_bound: Any, dtype: Any) -> jax.Array:
    """`value - lower_bound` in `dtype`; 0 where it is negative or not finite."""
    excess = jnp.asarray(value).astype(dtype) - lower_bound
    return jnp.where(jnp.isfinite(excess), jnp.maximum(excess, 0), 0)


def quadratic(
    g: Tree, metric: Tree, eps: Any, value: Any, lower_bound: Any
) -> tuple[Tree, jax.Array]:
    """The direction `g / D` with `D = max(metric, eps)`, and the fraction of it that is stepped.

    The model is `value - <g, s> + <s, D s> / 2` of a step `s` against the gradient. The fraction is
    1 where it stays above the bound.
    """
    direction = jax.tree.map(lambda g, d: tree.ratio(g, jnp.maximum(d, eps)), g, metric)
    square = tree.dot(g, direction)
    twice = 2 * above(value, lower_bound, square.dtype)
    x = jnp.where(twice <= square, tree.ratio(twice, square), 1)
    return direction, x / (1 + root(1 - x))  # 1 - sqrt(1 - x)
