"""The one matrix view: any leaf of two axes or more as matrices that are not tall.

The last axis is the columns and all others are the rows, as in a JAX kernel `[..., in, out]`;
`batch_axes` are taken out first, as a batch of matrices of their own (scanned layers, experts).
A jitted function of matrices is traced once per distinct shape, whatever leaf they come from.
"""

import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import shard

Axes = tuple[int, ...]
Matrices = jax.Array  # [*batch, small, large]
OTHERS = r"(?i)embed|readout|wte|wpe|(?<!multi)(?<!multi_)head(_\d+)?(/|$)"


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
    front = jnp.moveaxis(shard.whole(x), batch_axes, range(len(batch)))
    return front.reshape(*batch, rows, cols)


def like(upright: jax.Array, x: jax.Array, batch_axes: Axes = ()) -> jax.Array:
    """`[*batch, rows, cols]` in the shape of the leaf `x`, sharded like it."""
    batch, rest = _split(x, batch_axes)
    leaf = jnp.moveaxis(upright.reshape(batch + rest), range(len(batch)), batch_axes)
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
    return map_stacks(of_stack, xs, _split_by_one_kernel if on_cpu else jnp.split)


def map_stacks(
    f: Callable[[Matrices], Matrices],
    xs: Sequence[Matrices],
    split: Callable[[jax.Array, list[int]], list[jax.Array]] = jnp.split,
) -> list[Matrices]:
    """`f` of each of `xs`, called once for all of a shape: on the stack of their matrices."""
    groups: dict[Any, list[int]] = {}
    for i, x in enumerate(xs):
        groups.setdefault((x.shape[-2:], x.dtype), []).append(i)
    ys = list(xs)
    for group in groups.values():
        stacks = [_stack(xs[i]) for i in group]
        ends = list(itertools.accumulate(len(stack) for stack in stacks[:-1]))
        parts = split(f(jnp.concatenate(stacks)), ends)
        for i, part in zip(group, parts):
            ys[i] = part.reshape(*xs[i].shape[:-2], *part.shape[-2:])
    return ys


def _split_by_one_kernel(stack: jax.Array, ends: list[int]) -> list[jax.Array]:
    """`jnp.split`, at places that XLA does not know when it compiles.

    For places that it knows it compiles one kernel each: for 400 leaves, ten times as long.
    """
    starts = [jnp.int32(n) for n in (0, *ends)]
    lengths = [end - start for start, end in zip((0, *ends), (*ends, len(stack)))]
    never = jax.lax.optimization_barrier(jnp.array(False))
    starts = jax.lax.cond(never, lambda: starts[1:] + starts[:1], lambda: starts)
    return [
        jax.lax.dynamic_slice_in_dim(stack, start, length)
        for start, length in zip(starts, lengths)
    ]


def _in_turn(f: Callable[[Matrices], Matrices], stack: jax.Array) -> jax.Array:
    return jax.lax.map(f, stack) if len(stack) > 1 else f(stack)


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
