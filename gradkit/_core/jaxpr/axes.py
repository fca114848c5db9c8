"""Descriptions of the axes of an array by the parameter axes that they consist of."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Labels = frozenset[Any]  # axes of a parameter; pairs (path, axis) in a view of features


class Part(NamedTuple):
    """A factor of an axis of an array: entries of one parameter axis, or of several merged."""

    label: Labels
    size: int
    step: int = 0  # stride in entries of the parameter axis; 0 where axes are merged


Axis = tuple[Part, ...]  # its factors, outermost first, none of size 1
Taken = Mapping[int, tuple[int, int]]  # by axis: start and stop
NONE: Labels = frozenset()
TAKES = {
    "slice",
    "dynamic_slice",
    "gather",
    "split",
    "unstack",
}  # primitives that take some entries of one array


class Contraction(NamedTuple):
    """Axes of a product; each field is a pair for the left and the right operand."""

    summed: tuple[Sequence[int], Sequence[int]]
    batch: tuple[Sequence[int], Sequence[int]]  # batch axes
    kept: tuple[Mapping[int, int], Mapping[int, int]]  # result axis: operand axis


def axis(label: Labels, n: int, step: int = 0) -> Axis:
    """An axis of one part with `n` entries; empty if `n` is 1."""
    return (Part(label, n, step),) if n != 1 else ()


def whole(shape: Sequence[int]) -> tuple[Axis, ...]:
    """Axes of an untouched parameter of `shape`: each is its own label."""
    parts = (Part(frozenset({i}), n, 1) for i, n in enumerate(shape))
    return tuple((part,) if part.size != 1 else () for part in parts)


def repeated(shape: Sequence[int]) -> tuple[Axis, ...]:
    """Axes without a label: the parameter is repeated along them."""
    return tuple(axis(NONE, n) for n in shape)


def labels(axes: Iterable[Axis]) -> Labels:
    """All parameter axes in `axes`."""
    return NONE.union(*(part.label for parts in axes for part in parts))


def size(parts: Axis) -> int:
    """Length of an axis."""
    return math.prod(part.size for part in parts)


def resize(axes: Sequence[Axis], shape: Sequence[int]) -> tuple[Axis, ...]:
    """`axes` cut, padded, joined or repeated to `shape`."""
    return tuple(
        parts if math.prod(part.size for part in parts) == n else _resized(parts, n)
        for parts, n in zip(axes, shape)
    )


def _resized(parts: Axis, n: int) -> Axis:
    """An axis resized to `n` entries; it keeps its step only if it has one part."""
    return axis(labels([parts]), n, parts[0].step if len(parts) == 1 else 0)


def reshape(axes: Sequence[Axis], shape: Sequence[int]) -> tuple[Axis, ...]:
    """`axes` split and joined to `shape`."""
    parts_left = [part for parts in axes for part in parts]

    def take(n: int) -> Axis:
        taken: list[Part] = []
        while n > 1:
            label, have, step = parts_left.pop(0)
            if have % n and n % have:  # no common boundary: merge with the next
                other, more, _ = parts_left.pop(0)
                parts_left.insert(0, Part(label | other, have * more))
            else:
                inner = max(have // n, 1)
                parts_left[:0] = axis(label, inner, step)
                taken.append(Part(label, min(have, n), step * inner))
                n //= min(have, n)
        return tuple(taken)

    return tuple(take(n) for n in shape)


def move(
    axes: Sequence[Axis], eqn: Any, shape: Sequence[int]
) -> tuple[Axis, ...] | None:
    """Carry the `axes` of an operand to the result, of `shape`; None if they cannot be traced."""
    match eqn.primitive.name:
        case "transpose":
            return tuple(axes[i] for i in eqn.params["permutation"])
        case "broadcast_in_dim":
            new = list(repeated(shape))
            for i, parts in zip(eqn.params["broadcast_dimensions"], axes):
                new[i] = resize([parts], [shape[i]])[0]
            return tuple(new)
        case "reshape" | "expand_dims" | "squeeze":
            return reshape(axes, shape)
        case "slice" | "dynamic_slice" | "split" | "pad" | "concatenate" | "fft":
            return resize(axes, shape)
        case "stack":
            new = eqn.params["axis"]
            return (*axes[:new], axis(NONE, shape[new]), *axes[new:])
        case "unstack":
            removed = eqn.params["axis"]
            return (*axes[:removed], *axes[removed + 1 :])
        case "tile":
            return tuple(axis(NONE, n) + a for n, a in zip(eqn.params["reps"], axes))
        case "reduce_max" | "reduce_min" | "reduce_sum":
            removed = eqn.params["axes"]
            return tuple(parts for i, parts in enumerate(axes) if i not in removed)
    if not axes:
        return repeated(shape)
    if len(axes) == len(shape) and all(size(a) in (1, n) for a, n in zip(axes, shape)):
        return resize(axes, shape)
    return None


def gather(axes: Sequence[Axis], eqn: Any, index_label: Labels) -> tuple[Axis, ...]:
    """Carry the `axes` of the operand to the result of a gather; new axes get `index_label`."""
    dimensions, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    dropped = {*dimensions.collapsed_slice_dims, *dimensions.operand_batching_dims}
    kept = iter(i for i in range(len(axes)) if i not in dropped)
    batched = dict(
        zip(dimensions.start_indices_batching_dims, dimensions.operand_batching_dims)
    )
    new: list[Axis] = []
    for i, n in enumerate(eqn.outvars[0].aval.shape):
        if i in dimensions.offset_dims:
            dim = next(kept)
            new += resize([axes[dim]], [sizes[dim]])
        else:
            batch = len([j for j in range(i) if j not in dimensions.offset_dims])
            new.append(
                axes[batched[batch]] if batch in batched else axis(index_label, n)
            )
    return tuple(new)


def contraction(eqn: Any) -> Contraction:
    """Summed, batch and kept axes of a matrix product, ragged product or convolution."""
    ndims = [x.aval.ndim for x in eqn.invars[:2]]
    match eqn.primitive.name:
        case "dot_general":
            summed, batch = eqn.params["dimension_numbers"]
            left, right = (
                [
                    i
                    for i in range(ndims[side])
                    if i not in (*summed[side], *batch[side])
                ]
                for side in (0, 1)
            )
            left_kept = dict(enumerate((*batch[0], *left)))
            right_kept = dict(enumerate(batch[1])) | dict(
                enumerate(right, len(left_kept))
            )
            return Contraction(summed, batch, (left_kept, right_kept))
        case "ragged_dot_general":
            dimensions = eqn.params["ragged_dot_dimension_numbers"]
            summed, (left, right) = dimensions.dot_dimension_numbers
            batch = left, (*right, *dimensions.rhs_group_dimensions)
            rows, last = range(ndims[0] - 1), eqn.outvars[0].aval.ndim - 1
            kept = dict(zip(rows, rows)), {last: ndims[1] - 1}
            return Contraction(summed, batch, kept)
    dimensions = eqn.params["dimension_numbers"]  # of a convolution
    (rows, channels, *_), (outputs, *kernel) = dimensions.lhs_spec, dimensions.rhs_spec
    out_spec = dimensions.out_spec
    left_kept = {out_spec[0]: rows}
    if eqn.params["feature_group_count"] == eqn.invars[0].aval.shape[channels]:
        left_kept[out_spec[1]] = channels  # depthwise: channels are kept
    return Contraction(((), kernel), ((), ()), (left_kept, {out_spec[1]: outputs}))


def taken(eqn: Any, i: int, starts: Sequence[float | None] = ()) -> Taken:
    """Entries of the first operand in the `i`-th result: start and stop by axis; {} if unknown."""
    match eqn.primitive.name:
        case "slice" if {*(eqn.params["strides"] or ())} <= {1}:
            ends = zip(eqn.params["start_indices"], eqn.params["limit_indices"])
            return dict(enumerate(ends))
        case "split":
            ends = [*itertools.accumulate(eqn.params["sizes"])]
            return {eqn.params["axis"]: (([0, *ends])[i], ends[i])}
        case "unstack":
            return {eqn.params["axis"]: (i, i + 1)}
        case "dynamic_slice" if None not in starts:
            ends = zip(starts, eqn.params["slice_sizes"])
            return {j: (int(a or 0), int(a or 0) + n) for j, (a, n) in enumerate(ends)}
        case "gather" if starts and starts[0] is not None:
            places = eqn.params["dimension_numbers"].start_index_map
            start, sizes = int(starts[0]), eqn.params["slice_sizes"]
            if len(places) == 1:
                axis = places[0]
                start %= eqn.invars[0].aval.shape[axis]
                return {axis: (start, start + sizes[axis])}
    return {}
