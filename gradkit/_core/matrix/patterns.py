"""One leaf as batches of matrices, by a pattern in the notation of einops.

`in (qkv=3 h d=64) -> (qkv h) in d` names the axes of a leaf, states the lengths that cannot be
inferred, and says how the axes become `[batch, rows, cols]`. `in out=512+128+128 -> in out` cuts
an axis into blocks, each a batch of its own.
"""

import functools
import itertools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import shard

AXIS = re.compile(r"([^\W\d]\w*)(?:=([1-9]\d*(?:\+[1-9]\d*)*))?")
PREFIX = "axis_"  # before all names: einops warns of Python keywords such as `in`


class Pattern(NamedTuple):
    """A parsed pattern."""

    text: str  # as it was written
    left: str  # the axes of the leaf
    right: str  # the axes of a view
    stated: dict[str, int]  # lengths by name
    cut: int  # index of the axis that has blocks
    blocks: tuple[int, ...]  # the lengths of its blocks; () if no axis has any


def read(text: str) -> Pattern:
    """Parse `text`; a ValueError says why if it is no pattern."""
    sizes: dict[str, list[int]] = {}

    def take(axis: re.Match[str]) -> str:
        name = PREFIX + axis[1]
        if axis[2]:
            sizes[name] = [int(n) for n in axis[2].split("+")]
        return name

    left, arrow, right = AXIS.sub(take, text).partition("->")
    axes, viewed = _axes(left), _axes(right)
    if not arrow or "..." in text:
        raise ValueError("it must have one '->' and a name for every axis")
    _rearrange(np.empty([1] * len(axes)), left, right, dict.fromkeys(sizes, 1))
    if len(viewed) > 3:
        raise ValueError(f"{len(viewed)} axes are left; group some, as in '(a b)'")
    cut = [name for name, blocks in sizes.items() if len(blocks) > 1]
    if len(cut) > 1 or not set(cut) <= set(axes):
        raise ValueError("one axis can have blocks, and not in parentheses")
    return Pattern(
        text=text,
        left=left,
        right=f"1 {right}" if len(viewed) == 2 else right,
        stated={name: sum(blocks) for name, blocks in sizes.items()},
        cut=axes.index(cut[0]) if cut else 0,
        blocks=tuple(sizes[cut[0]]) if cut else (),
    )


@functools.cache
def as_matrix(ndim: int) -> Pattern:
    """The pattern with the last axis as columns, all others as rows; vectors and scalars stay."""
    if ndim < 2:
        return read("n -> n" if ndim else "->")
    rows = " ".join(f"row{i}" for i in range(ndim - 1))
    return read(f"{rows} col -> ({rows}) col")


def lengths(pattern: Pattern, shape: Sequence[int]) -> list[dict[str, int]]:
    """Axis lengths by name for each block; a ValueError says why `shape` does not fit."""
    names = re.findall(rf"{PREFIX}\w+", pattern.left)
    leaf = np.broadcast_to(np.empty([]), shape)
    ungrouped = _rearrange(leaf, pattern.left, " ".join(names), pattern.stated)
    sizes = dict(zip(names, ungrouped.shape))
    axis = _axes(pattern.left)[pattern.cut] if pattern.blocks else ""
    return [sizes | {axis: n} for n in pattern.blocks] or [sizes]


def split(pattern: Pattern, x: Any) -> list[Any]:
    """Each block of the leaf `x` as `[batch, rows, cols]`; for a shape, shapes."""
    if isinstance(x, jax.ShapeDtypeStruct):
        return jax.eval_shape(functools.partial(split, pattern), x)
    ends = list(itertools.accumulate(pattern.blocks))[:-1]
    x = shard.whole(x) if x.ndim > 1 else x
    parts = jnp.split(x, ends, pattern.cut) if ends else [x]
    return [
        _rearrange(part, pattern.left, pattern.right, sizes)
        for part, sizes in zip(parts, lengths(pattern, x.shape))
    ]


def join(pattern: Pattern, views: Sequence[jax.Array], x: jax.Array) -> jax.Array:
    """The inverse of `split`: views joined to a leaf of the shape and sharding of `x`."""
    parts = [
        _rearrange(view, pattern.right, pattern.left, sizes)
        for view, sizes in zip(views, lengths(pattern, x.shape))
    ]
    leaf = jnp.concatenate(parts, pattern.cut) if pattern.blocks else parts[0]
    return shard.alike(leaf, x)


def _axes(side: str) -> list[str]:
    """The axes of one side of a pattern; a group in parentheses is one axis."""
    return re.findall(r"\([^()]*\)|[^\s()]+", side)


def _rearrange(x: Any, left: str, right: str, sizes: dict[str, int]) -> Any:
    try:
        return einops.rearrange(x, f"{left} -> {right}", **sizes)
    except einops.EinopsError as error:
        reason = str(error).splitlines()[-1].strip().replace(PREFIX, "")
        raise ValueError(reason) from None
