"""Any leaf as matrices: the last axis is the columns, and all others are the rows.

A JAX kernel is `[..., in, out]`. The stacked axes `batch_axes` (scanned layers, experts) come
first, as a batch. Fat matrices have at most as many rows as columns. Methods that commute with
transposition transpose tall matrices, so that leaves of one shape share one trace.
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
    batch, matrix_axes = _split(x, batch_axes)
    *rows, cols = matrix_axes or (1,)
    return batch, math.prod(rows), cols


def as_matrix(x: jax.Array, batch_axes: Axes = ()) -> jax.Array:
    """The leaf `x` as `[*batch, rows, cols]`."""
    batch, rows, cols = shape(x, batch_axes)
    front = jnp.moveaxis(
        shard.whole(x), _stacked_axes(x, batch_axes), range(len(batch))
    )
    return front.reshape(*batch, rows, cols)


def like(matrices: jax.Array, x: jax.Array, batch_axes: Axes = ()) -> jax.Array:
    """`[*batch, rows, cols]` in the shape of the leaf `x`, sharded like it."""
    batch, matrix_axes = _split(x, batch_axes)
    stacked = matrices.reshape(batch + matrix_axes)
    leaf = jnp.moveaxis(stacked, range(len(batch)), _stacked_axes(x, batch_axes))
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
    """The lengths of the stacked axes, and of all other axes."""
    stacked = _stacked_axes(x, batch_axes)
    others = [n for axis, n in enumerate(x.shape) if axis not in stacked]
    return tuple(x.shape[axis] for axis in stacked), tuple(others)


def _stacked_axes(x: Any, batch_axes: Axes) -> Axes:
    """The stacked axes of the leaf `x`, counted from the first; a scalar has none."""
    if is_overlooked(x.shape, batch_axes):
        requirement = (
            f"a stack of matrices {x.shape} must be numbered by its first axis"
        )
        remedy = (
            "Pass batch_axes=(0,) within a view, or write a pattern with two axes "
            "on the right, as in 'h d out -> (h d) out'."
        )
        got = f"batch_axes = {tuple(batch_axes)}"
        raise error(
            ValueError, "view_by_pattern", f"{requirement}, got {got}. {remedy}"
        )
    return tuple(axis % x.ndim for axis in batch_axes) if x.ndim else ()
