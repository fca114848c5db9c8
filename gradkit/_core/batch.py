"""The one matrix view: any leaf of two axes or more as matrices that are not tall.

The last axis is the columns and all others are the rows, as in a JAX kernel `[..., in, out]`;
`batch_axes` are taken out first, as a batch of matrices of their own (scanned layers, experts).
A jitted function of matrices is traced once per distinct shape, whatever leaf they come from.
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import shard
from gradkit._core.tree import wide_dtype

Axes = tuple[int, ...]
Matrices = jax.Array  # [*batch, small, large]
OTHERS = r"(?i)embed|readout|wte|wpe|(?<!multi)(?<!multi_)head(_\d+)?(/|$)"


def shape(x: Any, batch_axes: Axes = ()) -> tuple[tuple[int, ...], int, int]:
    """The lengths of the batch axes of the leaf `x`, its rows, and its columns."""
    batch, (*rows, cols) = _split(x, batch_axes)
    return batch, math.prod(rows), cols


def wide(x: jax.Array, batch_axes: Axes = ()) -> Matrices:
    """The leaf `x` as `[*batch, small, large]`: tall matrices lie on their side."""
    batch, rows, cols = shape(x, batch_axes)
    front = jnp.moveaxis(shard.whole(x), batch_axes, range(len(batch)))
    matrices = front.reshape(*batch, rows, cols)
    return matrices.mT if rows > cols else matrices


def unwide(matrices: Matrices, x: jax.Array, batch_axes: Axes = ()) -> jax.Array:
    """`[*batch, small, large]` in the shape of the leaf `x`, sharded like it."""
    batch, rest = _split(x, batch_axes)
    _, rows, cols = shape(x, batch_axes)
    upright = matrices.mT if rows > cols else matrices
    leaf = jnp.moveaxis(upright.reshape(batch + rest), range(len(batch)), batch_axes)
    return shard.alike(leaf, x)


def map_wide(f: Callable[[Matrices], Matrices], t: Any, batch_axes: Axes = ()) -> Any:
    """`f` of every leaf's matrices, for an `f` that keeps shapes and commutes with `.mT`."""
    leaves, structure = jax.tree.flatten(t)
    ys = map_shapes(f, [wide(x, batch_axes) for x in leaves])
    return structure.unflatten(unwide(y, x, batch_axes) for x, y in zip(leaves, ys))


def map_shapes(
    f: Callable[[Matrices], Matrices], xs: Sequence[Matrices]
) -> list[Matrices]:
    """`f` of each of `xs`, for a jitted `f`, which is traced once per distinct shape.

    On a CPU one after the other: each stays in its cache, and XLA compiles equal kernels once.
    Accelerators get all matrices of a shape at once.
    """
    on_cpu = jax.default_backend() == "cpu"
    return [f(x) for x in xs] if on_cpu else map_stacks(f, xs)


def map_stacks(
    f: Callable[[Matrices], Matrices], xs: Sequence[Matrices]
) -> list[Matrices]:
    """`f` of each of `xs`, called once per distinct shape on the stack of them."""
    groups: dict[Any, list[int]] = {}
    for i, x in enumerate(xs):
        groups.setdefault((x.shape[-2:], x.dtype), []).append(i)
    ys = list(xs)
    for members in groups.values():
        stacks = [_stack(xs[i]) for i in members]
        ends = itertools.accumulate(len(stack) for stack in stacks[:-1])
        parts = jnp.split(f(jnp.concatenate(stacks)), list(ends))
        for i, part in zip(members, parts):
            ys[i] = part.reshape(*xs[i].shape[:-2], *part.shape[-2:])
    return ys


def subspaces(
    params: Any, rank: int | jax.Array, batch_axes: Axes = ()
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
    """Zeros where each leaf's bases `[*batch, small, rank]` and coordinates
    `[*batch, rank, large]` will be, in at least float32.
    """
    bases, coordinates = [], []
    for p in jax.tree.leaves(params):
        batch, *sides = shape(p, batch_axes)
        small, large = sorted(sides)
        kept, dtype = min(int(rank), small), wide_dtype(p)
        bases.append(jnp.zeros((*batch, small, kept), dtype))
        coordinates.append(jnp.zeros((*batch, kept, large), dtype))
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


def _stack(x: Matrices) -> jax.Array:
    """`[*batch, small, large]` as `[matrices, small, large]`."""
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


def _split(x: Any, batch_axes: Axes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The lengths of the batch axes, and of all others."""
    taken = [axis % x.ndim for axis in batch_axes]
    rest = [n for axis, n in enumerate(x.shape) if axis not in taken]
    return tuple(x.shape[axis] for axis in taken), tuple(rest)
