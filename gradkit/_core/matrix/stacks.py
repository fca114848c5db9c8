"""Leaves of one shape as one stacked array, so that one program computes all of them.

The number of traces, of compiled kernels and of launches on an accelerator does not grow with the
number of leaves.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import kinds, shard, tree
from gradkit._core.matrix import layout, memory

OfMatrices = Callable[[layout.Matrices], layout.Matrices]
Parts = Callable[[list[jax.Array], list[list[int]]], list[list[jax.Array]]]
Groups = list[list[int]]  # indices of items of equal shapes


def map_fat(f: OfMatrices, t: Any, batch_axes: layout.Axes = ()) -> Any:
    """`f` of every leaf's fat matrices; `f` keeps shapes and commutes with transposition."""
    leaves, structure = jax.tree.flatten(t)
    ys = map_shapes(f, [layout.fat(x, batch_axes) for x in leaves])
    return structure.unflatten(
        layout.from_fat(y, x, batch_axes) for x, y in zip(leaves, ys)
    )


def map_shapes(f: OfMatrices, xs: Sequence[layout.Matrices]) -> list[layout.Matrices]:
    """`[f(x) for x in xs]`, stacked by shape; `f` treats every matrix of a stack on its own.

    On a mesh the matrices of a shape are split evenly over devices. An accelerator takes all of
    them at once. A CPU takes them in sequence, so that each stays in its cache.
    """
    on_cpu = jax.default_backend() == "cpu"
    of_stack = functools.partial(_in_sequence, f) if on_cpu else f
    if shard.devices() > 1:
        return map_stacks(functools.partial(shard.share, of_stack), xs)
    if on_cpu:
        return map_stacks(of_stack, xs, kinds.AT_ONCE, memory.parts)
    return map_stacks(of_stack, xs)


def split(stacks: list[jax.Array], lengths: list[list[int]]) -> list[list[jax.Array]]:
    """Split each stack along its first axis into parts of these lengths."""
    return [
        jnp.split(stack, list(itertools.accumulate(ns[:-1])))
        for stack, ns in zip(stacks, lengths)
    ]


def map_stacks(
    f: OfMatrices,
    xs: Sequence[layout.Matrices],
    leaves: int | None = None,
    parts: Parts = split,
) -> list[layout.Matrices]:
    """`[f(x) for x in xs]`, with one call of `f` on the stacked matrices of each shape.

    A stack holds at most `leaves` of `xs`, if given. `parts` splits the results.
    """
    groups = kinds.places([(x.shape[-2:], x.dtype) for x in xs], leaves)
    stacks = [[_flat(xs[i]) for i in group] for group in groups]
    lengths = [[len(stack) for stack in group] for group in stacks]
    results = [f(jnp.concatenate(group)) for group in stacks]
    ys = list(xs)
    for group, pieces in zip(groups, parts(results, lengths)):
        for i, piece in zip(group, pieces):
            ys[i] = piece.reshape(*xs[i].shape[:-2], *piece.shape[-2:])
    return ys


def groups_of(items: Sequence[Any]) -> Groups:
    """Indices of items, grouped by tree structure, shapes, dtypes and shardings."""

    def kind(item: Any) -> Any:
        leaves, structure = jax.tree.flatten(item)
        shapes = [(x.shape, x.dtype, jax.typeof(x).sharding) for x in leaves]
        return structure, *shapes

    on_cpu = jax.default_backend() == "cpu"
    return kinds.places(map(kind, items), kinds.AT_ONCE if on_cpu else None)


def stack(groups: Groups, items: Sequence[Any]) -> list[Any]:
    """One item for each group, whose arrays are stacked to `[items, ...]`."""
    together = lambda *xs: jnp.stack(xs)
    return [jax.tree.map(together, *(items[i] for i in group)) for group in groups]


def unstack(groups: Groups, stacks: Sequence[Any]) -> list[Any]:
    """The inverse of `stack`: the items in their original order."""
    by_index: dict[int, Any] = {}
    for group, stack in zip(groups, stacks):
        columns, structure = jax.tree.flatten(stack)
        items = zip(*map(tree.entries, columns)) if columns else [()] * len(group)
        by_index.update(zip(group, map(structure.unflatten, items)))
    return [by_index[i] for i in range(len(by_index))]


def map_stack(f: Callable[..., Any], *stacks: Any) -> Any:
    """`vmap` of `f` over stacks; on a CPU in sequence, so that each item stays in its cache."""
    if len(jax.tree.leaves(stacks)[0]) == 1:
        y = f(*jax.tree.map(lambda x: x[0], stacks))
        return jax.tree.map(lambda x: x[None], y)
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda items: f(*items), stacks)
    return jax.vmap(f)(*stacks)


def _in_sequence(f: OfMatrices, stack: jax.Array) -> jax.Array:
    return jax.lax.map(f, stack) if len(stack) > 1 else f(stack)


def _flat(x: layout.Matrices) -> jax.Array:
    """`[*batch, small, large]` as `[matrices, small, large]`."""
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
