"""The one matrix view: any leaf of two axes or more as matrices that are not tall.

The last axis is the columns and all others are the rows, as in a JAX kernel `[..., in, out]`;
`batch_axes` are taken out first, as a batch of matrices of their own (scanned layers, experts).
A jitted function of matrices is traced once per distinct shape, whatever leaf they come from.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import kinds, shard
from gradkit._core.called import error
from gradkit._core.stacked import is_overlooked

Axes = tuple[int, ...]
Matrices = jax.Array  # [*batch, small, large]
Parts = Callable[[list[jax.Array], list[list[int]]], list[list[jax.Array]]]


def shape(x: Any, batch_axes: Axes = ()) -> tuple[tuple[int, ...], int, int]:
    """The lengths of the batch axes of the leaf `x`, its rows, and its columns.

    A vector is one row, a scalar one entry.
    """
    batch, rest = _split(x, batch_axes)
    *rows, cols = rest or (1,)
    return batch, math.prod(rows), cols


def upright(x: jax.Array, batch_axes: Axes = ()) -> jax.Array:
    """The leaf `x` as `[*batch, rows, cols]`."""
    batch, rows, cols = shape(x, batch_axes)
    front = jnp.moveaxis(shard.whole(x), _taken(x, batch_axes), range(len(batch)))
    return front.reshape(*batch, rows, cols)


def like(upright: jax.Array, x: jax.Array, batch_axes: Axes = ()) -> jax.Array:
    """`[*batch, rows, cols]` in the shape of the leaf `x`, sharded like it."""
    batch, rest = _split(x, batch_axes)
    apart = upright.reshape(batch + rest)
    leaf = jnp.moveaxis(apart, range(len(batch)), _taken(x, batch_axes))
    return shard.alike(leaf, x)


def wide(x: jax.Array, batch_axes: Axes = ()) -> Matrices:
    """The leaf `x` as `[*batch, small, large]`: tall matrices lie on their side."""
    matrices = upright(x, batch_axes)
    return matrices.mT if is_tall(x, batch_axes) else matrices


def unwide(matrices: Matrices, x: jax.Array, batch_axes: Axes = ()) -> jax.Array:
    """`[*batch, small, large]` in the shape of the leaf `x`, sharded like it."""
    return like(matrices.mT if is_tall(x, batch_axes) else matrices, x, batch_axes)


def is_tall(x: Any, batch_axes: Axes = ()) -> bool:
    """Whether the matrices of the leaf `x` have more rows than columns."""
    _, rows, cols = shape(x, batch_axes)
    return rows > cols


def _parts(stacks: list[jax.Array], lengths: list[list[int]]) -> list[list[jax.Array]]:
    """Each stack's parts of these lengths."""
    return [
        jnp.split(stack, list(itertools.accumulate(ns[:-1])))
        for stack, ns in zip(stacks, lengths)
    ]


def _parts_by_one_kernel(
    stacks: list[jax.Array], lengths: list[list[int]]
) -> list[list[jax.Array]]:
    """`_parts`, at places that XLA does not know when it compiles.

    For places that it knows it compiles one kernel each, which takes ten times as long.
    """
    starts = [[0, *itertools.accumulate(ns[:-1])] for ns in lengths]
    places = sorted({start for group in starts for start in group})
    unknown = jax.lax.cond(
        jax.lax.optimization_barrier(np.array(False)),
        lambda: [np.int32(0) for _ in places],
        lambda: [np.int32(place) for place in places],
    )
    at = dict(zip(places, unknown))

    def part(stack: jax.Array, start: int, length: int) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(
            stack, at[start], length, allow_negative_indices=False
        )

    return [
        [part(stack, *place) for place in zip(group, ns)]
        for stack, group, ns in zip(stacks, starts, lengths)
    ]


def map_wide(f: Callable[[Matrices], Matrices], t: Any, batch_axes: Axes = ()) -> Any:
    """`f` of every leaf's matrices, for an `f` that keeps shapes and commutes with `.mT`."""
    leaves, structure = jax.tree.flatten(t)
    ys = map_shapes(f, [wide(x, batch_axes) for x in leaves])
    return structure.unflatten(unwide(y, x, batch_axes) for x, y in zip(leaves, ys))


def map_shapes(
    f: Callable[[Matrices], Matrices], xs: Sequence[Matrices]
) -> list[Matrices]:
    """`f` of each of `xs`, for an `f` that is the same for a stack as for each matrix of it.

    On a mesh each device works its share of the matrices of a shape, and an accelerator works
    all of them at once. A CPU takes one after the other, so that each stays in its cache.
    """
    on_cpu = jax.default_backend() == "cpu"
    of_stack = functools.partial(_in_turn, f) if on_cpu else f
    if shard.devices() > 1:
        return map_stacks(functools.partial(shard.share, of_stack), xs)
    if on_cpu:
        return map_stacks(of_stack, xs, kinds.AT_ONCE, _parts_by_one_kernel)
    return map_stacks(of_stack, xs)


def map_stacks(
    f: Callable[[Matrices], Matrices],
    xs: Sequence[Matrices],
    leaves: int | None = None,
    parts: Parts = _parts,
) -> list[Matrices]:
    """`f` of each of `xs`, called once for all of a shape: on the stack of their matrices.

    Or on several stacks of at most so many `leaves`, of which results `parts` are taken.
    """
    stacked = kinds.places([(x.shape[-2:], x.dtype) for x in xs], leaves)
    stacks = [[_stack(xs[i]) for i in group] for group in stacked]
    lengths = [[len(stack) for stack in group] for group in stacks]
    results = [f(jnp.concatenate(group)) for group in stacks]
    ys = list(xs)
    for group, found in zip(stacked, parts(results, lengths)):
        for i, part in zip(group, found):
            ys[i] = part.reshape(*xs[i].shape[:-2], *part.shape[-2:])
    return ys


def _in_turn(f: Callable[[Matrices], Matrices], stack: jax.Array) -> jax.Array:
    return jax.lax.map(f, stack) if len(stack) > 1 else f(stack)


def _stack(x: Matrices) -> jax.Array:
    """`[*batch, small, large]` as `[matrices, small, large]`."""
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


def _split(x: Any, batch_axes: Axes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The lengths of the batch axes, and of all others."""
    taken = _taken(x, batch_axes)
    rest = [n for axis, n in enumerate(x.shape) if axis not in taken]
    return tuple(x.shape[axis] for axis in taken), tuple(rest)


def _taken(x: Any, batch_axes: Axes) -> Axes:
    """The batch axes of the leaf `x`, counted from the first; a scalar has none."""
    if is_overlooked(x.shape, batch_axes):
        what = f"a stack of matrices {x.shape} must be numbered by its first axis"
        remedy = (
            "Pass batch_axes=(0,) within a view, or write a pattern with two axes "
            "on the right, as in 'h d out -> (h d) out'."
        )
        got = f"batch_axes = {tuple(batch_axes)}"
        raise error(ValueError, "view_by_pattern", f"{what}, got {got}. {remedy}")
    return tuple(axis % x.ndim for axis in batch_axes) if x.ndim else ()
