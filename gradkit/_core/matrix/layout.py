"""The one matrix view: any leaf as matrices, the last axis their columns, all others their rows.

So in a JAX kernel `[..., in, out]`. Stacked axes (scanned layers, experts), `batch_axes`, are taken
out first, as a batch of matrices. Fat matrices have no more rows than columns: tall ones are
transposed, for what is the same of both.
A jitted function of matrices is traced once per distinct shape, whatever leaf they come from.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import shard
from gradkit._core.call import error, is_overlooked

Axes = tuple[int, ...]
Matrices = jax.Array  # [*batch, small, large]


def shape(x: Any, batch_axes: Axes = ()) -> tuple[tuple[int, ...], int, int]:
    """The lengths of the stacked axes of the leaf `x`, its rows, and its columns.

    A vector is one row, a scalar one entry.
    """
    batch, rest = _split(x, batch_axes)
    *rows, cols = rest or (1,)
    return batch, math.prod(rows), cols


def as_matrix(x: jax.Array, batch_axes: Axes = ()) -> jax.Array:
    """The leaf `x` as `[*batch, rows, cols]`."""
    batch, rows, cols = shape(x, batch_axes)
    front = jnp.moveaxis(shard.whole(x), _taken(x, batch_axes), range(len(batch)))
    return front.reshape(*batch, rows, cols)


def like(matrices: jax.Array, x: jax.Array, batch_axes: Axes = ()) -> jax.Array:
    """`[*batch, rows, cols]` in the shape of the leaf `x`, sharded like it."""
    batch, rest = _split(x, batch_axes)
    apart = matrices.reshape(batch + rest)
    leaf = jnp.moveaxis(apart, range(len(batch)), _taken(x, batch_axes))
    return shard.alike(leaf, x)


def fat(x: jax.Array, batch_axes: Axes = ()) -> Matrices:
    """The leaf `x` as `[*batch, small, large]`: tall matrices are transposed."""
    matrices = as_matrix(x, batch_axes)
    return matrices.mT if is_tall(x, batch_axes) else matrices


def from_fat(matrices: Matrices, x: jax.Array, batch_axes: Axes = ()) -> jax.Array:
    """`[*batch, small, large]` in the shape of the leaf `x`, sharded like it."""
    return like(matrices.mT if is_tall(x, batch_axes) else matrices, x, batch_axes)


def is_tall(x: Any, batch_axes: Axes = ()) -> bool:
    """Whether the matrices of the leaf `x` have more rows than columns."""
    _, rows, cols = shape(x, batch_axes)
    return rows > cols


def _split(x: Any, batch_axes: Axes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The lengths of the stacked axes, and of all others."""
    taken = _taken(x, batch_axes)
    rest = [n for axis, n in enumerate(x.shape) if axis not in taken]
    return tuple(x.shape[axis] for axis in taken), tuple(rest)


def _taken(x: Any, batch_axes: Axes) -> Axes:
    """The stacked axes of the leaf `x`, counted from the first; a scalar has none."""
    if is_overlooked(x.shape, batch_axes):
        what = f"a stack of matrices {x.shape} must be numbered by its first axis"
        remedy = (
            "Pass batch_axes=(0,) within a view, or write a pattern with two axes "
            "on the right, as in 'h d out -> (h d) out'."
        )
        got = f"batch_axes = {tuple(batch_axes)}"
        raise error(ValueError, "view_by_pattern", f"{what}, got {got}. {remedy}")
    return tuple(axis % x.ndim for axis in batch_axes) if x.ndim else ()
