"""The one matrix view: any leaf of two axes or more as `[batch, rows, cols]`.

The last axis is the columns and all others are the rows, as in a JAX kernel `[..., in, out]`;
`batch_axes` are taken out first, as a batch of matrices of their own (scanned layers, experts).
Matrices of one shape are stacked, whatever leaf they come from, so that a function of matrices
compiles once per distinct shape.
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gradkit._core.tree import wide_dtype

Axes = tuple[int, ...]
OTHERS = r"(?i)embed|readout|wte|wpe|(?<!multi)(?<!multi_)head(_\d+)?(/|$)"


def shape(x: Any, batch_axes: Axes = ()) -> tuple[int, int, int]:
    """How many matrices the leaf `x` holds, their rows, and their columns."""
    batch, (*rows, cols) = _split(x, batch_axes)
    return math.prod(batch), math.prod(rows), cols


def wide(x: jax.Array, batch_axes: Axes = ()) -> jax.Array:
    """The leaf `x` as `[batch, small, large]`: tall matrices lie on their side."""
    _, rows, cols = shape(x, batch_axes)
    front = jnp.moveaxis(_whole(x), batch_axes, range(len(batch_axes)))
    matrices = front.reshape(shape(x, batch_axes))
    return matrices.mT if rows > cols else matrices


def unwide(matrices: jax.Array, x: jax.Array, batch_axes: Axes = ()) -> jax.Array:
    """`[batch, small, large]` in the shape of the leaf `x`, sharded like it."""
    _, rows, cols = shape(x, batch_axes)
    upright = matrices.mT if rows > cols else matrices
    batch, rest = _split(x, batch_axes)
    front = upright.reshape(batch + rest)
    return place(jnp.moveaxis(front, range(len(batch_axes)), batch_axes), x)


def once_per_shape(
    f: Callable[[jax.Array], jax.Array], xs: Sequence[jax.Array]
) -> list[jax.Array]:
    """`f` of every `[batch, rows, cols]`, called once per distinct shape on the stack of them."""
    groups: dict[Any, list[int]] = {}
    for i, x in enumerate(xs):
        groups.setdefault((x.shape[1:], x.dtype), []).append(i)
    ys = list(xs)
    for members in groups.values():
        stack = f(jnp.concatenate([xs[i] for i in members]))
        ends = itertools.accumulate(len(xs[i]) for i in members[:-1])
        for i, y in zip(members, jnp.split(stack, list(ends))):
            ys[i] = y
    return ys


def map_wide(f: Callable[[jax.Array], jax.Array], t: Any, batch_axes: Axes = ()) -> Any:
    """`f` of every leaf's matrices, for an `f` that keeps shapes and commutes with `.mT`."""
    leaves, structure = jax.tree.flatten(t)
    ys = once_per_shape(f, [wide(x, batch_axes) for x in leaves])
    return structure.unflatten(unwide(y, x, batch_axes) for x, y in zip(leaves, ys))


def subspaces(
    params: Any, rank: int, batch_axes: Axes = ()
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Zeros where each leaf's bases `[batch, small, rank]` and coordinates
    `[batch, rank, large]` will be, in at least float32.
    """
    bases, coordinates = [], []
    for p in jax.tree.leaves(params):
        batch, *sides = shape(p, batch_axes)
        small, large = sorted(sides)
        kept, dtype = min(rank, small), wide_dtype(p)
        bases.append(jnp.zeros((batch, small, kept), dtype))
        coordinates.append(jnp.zeros((batch, kept, large), dtype))
    return tuple(bases), tuple(coordinates)


def hidden(
    others: str, batch_axes: Axes = ()
) -> tuple[Callable[[str, Any], bool], Callable[[str, Any], bool]]:
    """Two rules over path and leaf: the hidden matrices, and all the rest.

    A hidden matrix has two axes or more besides `batch_axes`, and a path in which the regular
    expression `others` is not found.
    """

    def matrices(path: str, leaf: Any) -> bool:
        return leaf.ndim - len(batch_axes) >= 2 and not re.search(others, path)

    def rest(path: str, leaf: Any) -> bool:
        return not matrices(path, leaf)

    return matrices, rest


def place(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x` sharded as `y` is, where shardings are explicit."""
    sharding = jax.typeof(y).sharding
    return (
        x if jax.typeof(x).sharding == sharding else jax.sharding.reshard(x, sharding)
    )


def _whole(x: jax.Array) -> jax.Array:
    """`x` unsharded, where shardings are explicit: leaves sharded unlike do not stack."""
    sharding = jax.typeof(x).sharding
    if all(axis is None for axis in sharding.spec):
        return x
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec()))


def _split(x: Any, batch_axes: Axes) -> tuple[list[int], list[int]]:
    """The lengths of the batch axes, and of all others."""
    taken = [axis % x.ndim for axis in batch_axes]
    rest = [n for axis, n in enumerate(x.shape) if axis not in taken]
    return [x.shape[axis] for axis in taken], rest
