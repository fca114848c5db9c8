"""Which axes of a parameter each axis of an array is made of, through any rearrangement."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

Labels = frozenset[Any]  # axes of the parameter; of features places, with its path


class Part(NamedTuple):
    """Some of the entries of one axis of a parameter, or of several, side by side."""

    label: Labels
    size: int
    step: int = 0  # from one to the next, in entries of the axis; 0 where they mix


Axis = tuple[Part, ...]  # outer first, none of size 1
Taken = Mapping[int, tuple[int, int]]  # by axis, from which entry to before which
NONE: Labels = frozenset()
TAKES = {"slice", "dynamic_slice", "gather", "split", "unstack"}  # some entries of one


class Contraction(NamedTuple):
    """What a product does with the axes of its operands, each for the left and the right one."""

    summed: tuple[Sequence[int], Sequence[int]]
    batch: tuple[Sequence[int], Sequence[int]]  # that it works through
    kept: tuple[Mapping[int, int], Mapping[int, int]]  # by axis of the result


def axis(label: Labels, n: int, step: int = 0) -> Axis:
    """An axis of `n` entries in one part."""
    return (Part(label, n, step),) if n != 1 else ()


def whole(shape: Sequence[int]) -> tuple[Axis, ...]:
    """The axes of the parameter itself."""
    parts = (Part(frozenset({i}), n, 1) for i, n in enumerate(shape))
    return tuple((part,) if part.size != 1 else () for part in parts)


def repeated(shape: Sequence[int]) -> tuple[Axis, ...]:
    """Axes along which the parameter does not change."""
    return tuple(axis(NONE, n) for n in shape)


def labels(axes: Iterable[Axis]) -> Labels:
    """The axes of the parameter that `axes` are made of."""
    return NONE.union(*(part.label for parts in axes for part in parts))


def size(parts: Axis) -> int:
    """How long an axis is."""
    return math.prod(part.size for part in parts)


def resize(axes: Sequence[Axis], shape: Sequence[int]) -> tuple[Axis, ...]:
    """`axes` cut, padded, joined or repeated to `shape`."""
    return tuple(
        parts if math.prod(part.size for part in parts) == n else _resized(parts, n)
        for parts, n in zip(axes, shape)
    )


def _resized(parts: Axis, n: int) -> Axis:
    """An axis made `n` long, with the step of its entries where they are of one part."""
    return axis(labels([parts]), n, parts[0].step if len(parts) == 1 else 0)


def reshape(axes: Sequence[Axis], shape: Sequence[int]) -> tuple[Axis, ...]:
    """`axes` split and joined to `shape`."""
    rest = [part for parts in axes for part in parts]

    def take(n: int) -> Axis:
        taken: list[Part] = []
        while n > 1:
            label, have, step = rest.pop(0)
            if have % n and n % have:  # no boundary in common: one part with the next
                other, more, _ = rest.pop(0)
                rest.insert(0, Part(label | other, have * more))
            else:
                inner = max(have // n, 1)
                rest[:0] = axis(label, inner, step)
                taken.append(Part(label, min(have, n), step * inner))
                n //= min(have, n)
        return tuple(taken)

    return tuple(take(n) for n in shape)


def move(
    axes: Sequence[Axis], eqn: Any, shape: Sequence[int]
) -> tuple[Axis, ...] | None:
    """`axes` of an operand in the result, of `shape`, of an equation; None where unknown."""
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
            gone = eqn.params["axis"]
            return (*axes[:gone], *axes[gone + 1 :])
        case "tile":
            return tuple(axis(NONE, n) + a for n, a in zip(eqn.params["reps"], axes))
        case "reduce_max" | "reduce_min" | "reduce_sum":
            gone = eqn.params["axes"]
            return tuple(parts for i, parts in enumerate(axes) if i not in gone)
    if not axes:
        return repeated(shape)
    if len(axes) == len(shape) and all(size(a) in (1, n) for a, n in zip(axes, shape)):
        return resize(axes, shape)
    return None


def gather(axes: Sequence[Axis], eqn: Any, found: Labels) -> tuple[Axis, ...]:
    """`axes` of the operand in the result of a gather; `found` labels the new axes."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    gone = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = iter(i for i in range(len(axes)) if i not in gone)
    batched = dict(
        zip(numbers.start_indices_batching_dims, numbers.operand_batching_dims)
    )
    new: list[Axis] = []
    for i, n in enumerate(eqn.outvars[0].aval.shape):
        if i in numbers.offset_dims:
            dim = next(kept)
            new += resize([axes[dim]], [sizes[dim]])
        else:
            batch = len([j for j in range(i) if j not in numbers.offset_dims])
            new.append(axes[batched[batch]] if batch in batched else axis(found, n))
    return tuple(new)


def contraction(eqn: Any) -> Contraction:
    """What the product of an equation does with the axes of its operands."""
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
            ours = dict(enumerate((*batch[0], *left)))
            theirs = dict(enumerate(batch[1])) | dict(enumerate(right, len(ours)))
            return Contraction(summed, batch, (ours, theirs))
        case "ragged_dot_general":
            numbers = eqn.params["ragged_dot_dimension_numbers"]
            summed, (left, right) = numbers.dot_dimension_numbers
            batch = left, (*right, *numbers.rhs_group_dimensions)
            rows, last = range(ndims[0] - 1), eqn.outvars[0].aval.ndim - 1
            kept = dict(zip(rows, rows)), {last: ndims[1] - 1}
            return Contraction(summed, batch, kept)
    numbers = eqn.params["dimension_numbers"]  # of a convolution
    (rows, channels, *_), (outputs, *kernel) = numbers.lhs_spec, numbers.rhs_spec
    made = numbers.out_spec
    ours = {made[0]: rows}
    if eqn.params["feature_group_count"] == eqn.invars[0].aval.shape[channels]:
        ours[made[1]] = channels  # each channel by itself
    return Contraction(((), kernel), ((), ()), (ours, {made[1]: outputs}))


def taken(eqn: Any, i: int, starts: Sequence[float | None] = ()) -> Taken:
    """Which entries of the first operand the `i`-th result takes, where it takes some."""
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
