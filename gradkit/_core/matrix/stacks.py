"""One program for many: leaves of one shape are worked as one stack.

What is traced, compiled and, on an accelerator, launched then does not grow with their number.
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
Groups = list[list[int]]  # places of items of equal shapes


def map_fat(f: OfMatrices, t: Any, batch_axes: layout.Axes = ()) -> Any:
    """`f` of every leaf's matrices, for an `f` that keeps shapes and commutes with `.mT`."""
    leaves, structure = jax.tree.flatten(t)
    ys = map_shapes(f, [layout.fat(x, batch_axes) for x in leaves])
    return structure.unflatten(
        layout.from_fat(y, x, batch_axes) for x, y in zip(leaves, ys)
    )


def map_shapes(f: OfMatrices, xs: Sequence[layout.Matrices]) -> list[layout.Matrices]:
    """`f` of each of `xs`, for an `f` that is the same for a stack as for each matrix of it.

    On a mesh each device works an equal number of the matrices of a shape, and an accelerator
    works all of them at once. A CPU takes one after the other, so that each stays in its cache.
    """
    on_cpu = jax.default_backend() == "cpu"
    of_stack = functools.partial(_in_turn, f) if on_cpu else f
    if shard.devices() > 1:
        return map_stacks(functools.partial(shard.share, of_stack), xs)
    if on_cpu:
        return map_stacks(of_stack, xs, kinds.AT_ONCE, memory.parts)
    return map_stacks(of_stack, xs)


def split(stacks: list[jax.Array], lengths: list[list[int]]) -> list[list[jax.Array]]:
    """Each stack's parts of these lengths."""
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
    """`f` of each of `xs`, called once for all of a shape: on the stack of their matrices.

    Or on several stacks of at most so many `leaves`, of which results `parts` are taken.
    """
    groups = kinds.places([(x.shape[-2:], x.dtype) for x in xs], leaves)
    stacks = [[_flat(xs[i]) for i in group] for group in groups]
    lengths = [[len(stack) for stack in group] for group in stacks]
    results = [f(jnp.concatenate(group)) for group in stacks]
    ys = list(xs)
    for group, found in zip(groups, parts(results, lengths)):
        for i, part in zip(group, found):
            ys[i] = part.reshape(*xs[i].shape[:-2], *part.shape[-2:])
    return ys


def groups_of(items: Sequence[Any]) -> Groups:
    """The places of items, trees of arrays, that are equal in structure and shapes."""

    def kind(item: Any) -> Any:
        leaves, structure = jax.tree.flatten(item)
        shapes = [(x.shape, x.dtype, jax.typeof(x).sharding) for x in leaves]
        return structure, *shapes

    on_cpu = jax.default_backend() == "cpu"
    return kinds.places(map(kind, items), kinds.AT_ONCE if on_cpu else None)


def stack(groups: Groups, items: Sequence[Any]) -> list[Any]:
    """The items of each group as one, `[items, ...]`."""
    together = lambda *xs: jnp.stack(xs)
    return [jax.tree.map(together, *(items[i] for i in group)) for group in groups]


def unstack(groups: Groups, stacks: Sequence[Any]) -> list[Any]:
    """The items of stacks, in the order they had before."""
    found: dict[int, Any] = {}
    for group, stack in zip(groups, stacks):
        columns, structure = jax.tree.flatten(stack)
        items = zip(*map(tree.entries, columns)) if columns else [()] * len(group)
        found.update(zip(group, map(structure.unflatten, items)))
    return [found[i] for i in range(len(found))]


def map_stack(f: Callable[..., Any], *stacks: Any) -> Any:
    """`f` of the items of stacks; on a CPU of one after the other, which stays in its cache."""
    if len(jax.tree.leaves(stacks)[0]) == 1:
        y = f(*jax.tree.map(lambda x: x[0], stacks))
        return jax.tree.map(lambda x: x[None], y)
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda items: f(*items), stacks)
    return jax.vmap(f)(*stacks)


def _in_turn(f: OfMatrices, stack: jax.Array) -> jax.Array:
    return jax.lax.map(f, stack) if len(stack) > 1 else f(stack)


def _flat(x: layout.Matrices) -> jax.Array:
    """`[*batch, small, large]` as `[matrices, small, large]`."""
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
