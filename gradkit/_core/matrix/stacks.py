"""Functions of matrices, computed once for all leaves of one shape."""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import kinds, shard
from gradkit._core.matrix import layout

Parts = Callable[[list[jax.Array], list[list[int]]], list[list[jax.Array]]]


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


def map_fat(
    f: Callable[[layout.Matrices], layout.Matrices],
    t: Any,
    batch_axes: layout.Axes = (),
) -> Any:
    """`f` of every leaf's matrices, for an `f` that keeps shapes and commutes with `.mT`."""
    leaves, structure = jax.tree.flatten(t)
    ys = map_shapes(f, [layout.fat(x, batch_axes) for x in leaves])
    return structure.unflatten(
        layout.from_fat(y, x, batch_axes) for x, y in zip(leaves, ys)
    )


def map_shapes(
    f: Callable[[layout.Matrices], layout.Matrices], xs: Sequence[layout.Matrices]
) -> list[layout.Matrices]:
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
    f: Callable[[layout.Matrices], layout.Matrices],
    xs: Sequence[layout.Matrices],
    leaves: int | None = None,
    parts: Parts = _parts,
) -> list[layout.Matrices]:
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


def _in_turn(
    f: Callable[[layout.Matrices], layout.Matrices], stack: jax.Array
) -> jax.Array:
    return jax.lax.map(f, stack) if len(stack) > 1 else f(stack)


def _stack(x: layout.Matrices) -> jax.Array:
    """`[*batch, small, large]` as `[matrices, small, large]`."""
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])
