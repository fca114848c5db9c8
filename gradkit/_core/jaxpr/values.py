"""Abstract values of arrays, and how primitives map them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gradkit._core.jaxpr.axes import (
    NONE,
    Axis,
    Contraction,
    Labels,
    axis,
    gather,
    labels,
    move,
    repeated,
    resize,
    size,
)
from gradkit._core.jaxpr.primitives import LINEAR, NUMBERS, PRODUCTS


class ParameterView(NamedTuple):
    """One parameter as it appears in the axes of an array. `Labels` are axes of the parameter."""

    path: str
    axes: tuple[Axis, ...]  # of the array: the parameter axes each consists of
    layers: Labels = NONE  # scanned over
    experts: Labels = NONE  # mapped over
    indexed: Labels = NONE  # where the program takes one entry
    looked_up: Labels = NONE  # where the example chooses entries
    links: frozenset[tuple[int, str]] = (
        frozenset()
    )  # (axis, path): summed in a product with the parameter at path
    rows: frozenset[int] = frozenset()  # loops that slice it, one row at a time
    factor: float = 1.0  # product of the numbers it was multiplied by
    gain: bool = False  # multiplies another parameter, along some of its axes

    @property
    def summed(self) -> Labels:
        """Axes summed in products with other parameters, or with constants, whose path is ''."""
        return frozenset(axis for axis, _ in self.links)


class Factor(NamedTuple):
    """A number that data was multiplied by, not yet assigned to the use of a parameter."""

    event: int
    number: float
    origins: frozenset[int]  # use numbers, if the data was a sum of these uses only


Place = tuple[str, int]  # a path, and an axis of the parameter there
# A cut of a place: (place, step between entries, number of entries).
Cut = tuple[Place, int, int]
Piece = tuple[Cut, int]  # a cut, and the first entry of the piece


class Value(NamedTuple):
    """Abstract value of an array. All fields but the first three describe data only."""

    views: tuple[ParameterView, ...] = ()
    data: bool = False  # depends on the example
    number: float | None = None  # that all entries equal, if known
    factors: tuple[Factor, ...] = ()  # numbers it was multiplied by, unassigned
    origins: frozenset[int] = (
        frozenset()
    )  # use numbers, if it is a sum of these uses only
    sources: frozenset[str] = frozenset()  # parameters of the last products upstream
    ancestors: frozenset[str] = frozenset()  # all parameters upstream
    score: int | None = (
        None  # index in `Trace.scores`, if it is a product of activations
    )
    made: tuple[
        ParameterView, ...
    ] = ()  # products that its axes are outputs of; to find expert axes
    features: ParameterView | None = None  # parameter axes that its axes are outputs of
    pieces: frozenset[Piece] = frozenset()  # parts of axes that it consists of
    carries: frozenset[int] = frozenset()  # loops whose carry it depends on
    reduced: int = 0  # number of entries in each statistic, 0 if it is no statistic
    normalized: bool = False  # divided by its own statistic, so of a fixed size
    products: tuple[
        tuple[ParameterView, int], ...
    ] = ()  # entrywise products of a parameter and data, with use numbers
    activation_product: bool = False  # entrywise product of two activations


class Use(NamedTuple):
    """One use of a parameter, in an equation with data. `Labels` are axes of the parameter."""

    by: str  # the primitive
    inputs: Labels = NONE  # summed over, or looked up
    outputs: Labels = NONE  # kept in the result
    layers: Labels = NONE  # scanned over
    experts: Labels = NONE  # batch axes of the product, or mapped over
    indexed: Labels = NONE  # where the program takes one entry
    at: int = 0  # use number, in the order of the program
    groups: int = 1  # feature groups of a convolution
    blocks: Labels = NONE  # outputs that number the blocks of a block-diagonal matrix
    over: Labels = NONE  # of an entrywise use: axes that are features of the data too


class Score(NamedTuple):
    """A product of two activations, such as attention scores."""

    size: int  # how many entries are summed
    scale: float  # number that the sum is multiplied by
    sources: frozenset[str]  # paths of parameters that made the activations
    normalized: bool = False  # whether one of them was normalized


UNKNOWN = "unknown"  # prefix of `by` where the primitive is not understood
AS_DATA = "data"  # `by` of a parameter that is used as data
STATISTICS = ("reduce_m", "reduce_s", "arg")  # prefixes of the names of reductions


def number(eqn: Any, xs: Sequence[Value]) -> float | None:
    """Constant propagation: the number that all entries of the result equal, or None."""
    rule, numbers = NUMBERS.get(eqn.primitive.name), [x.number for x in xs]
    if eqn.primitive.name == "integer_pow":
        rule = lambda a: a ** eqn.params["y"]
    if rule is None or None in numbers:
        return None
    try:
        result = rule(*numbers)
    except (ArithmeticError, ValueError):
        return None
    return None if isinstance(result, complex) else result


def multiplied(name: str, xs: Sequence[Value], x: Value) -> float | None:
    """The number that operand `x` is multiplied by; None if the result is not linear in it."""
    if name in LINEAR:
        return 1.0
    if name not in ("mul", "div") or (name == "div" and xs[0] is not x):
        return None
    factor = 1.0
    for other in (y for y in xs if y is not x):
        if other.data and other.ancestors:
            return None
        factor *= other.number or 1.0
    return 1 / factor if name == "div" else factor


def scaled(name: str, xs: Sequence[Value], x: Value) -> Value:
    """Operand `x`, with the number it is multiplied by included in the factor of its views."""
    factor = multiplied(name, xs, x)
    if factor in (None, 1.0):  # None: not linear
        return x
    views = tuple(view._replace(factor=view.factor * factor) for view in x.views)
    return x._replace(views=views)


def moved(view: ParameterView, eqn: Any, shape: Sequence[int]) -> ParameterView | None:
    """Carry `view` to a result of `shape`; None if its axes cannot be traced."""
    axes = move(view.axes, eqn, shape)
    if axes is None:
        return None
    indexed = view.indexed
    if eqn.primitive.name in ("slice", "split"):
        cut = [a for a, b in zip(view.axes, axes) if size(a) > size(b) == 1]
        indexed |= labels(cut)
    elif eqn.primitive.name == "unstack":
        indexed |= labels([view.axes[eqn.params["axis"]]])
    return view._replace(axes=axes, indexed=indexed)


def through(
    view: ParameterView, kept: Mapping[int, int], shape: Sequence[int]
) -> ParameterView:
    """Carry `view` to a product of `shape`; `kept` maps axes of the product to axes of `view`."""
    new = [
        view.axes[kept[i]] if i in kept else axis(NONE, n) for i, n in enumerate(shape)
    ]
    return ParameterView(view.path, resize(new, shape))


def placed(view: ParameterView) -> ParameterView:
    """`view` with the path added to every label: a view of features."""
    return ParameterView(
        "",
        tuple(
            tuple(
                part._replace(label=frozenset((view.path, i) for i in part.label))
                for part in parts
            )
            for parts in view.axes
        ),
    )


def moved_all(
    views: Iterable[ParameterView], eqn: Any, shape: Sequence[int]
) -> tuple[ParameterView, ...]:
    """Carry views to a result of `shape`; leave out those whose axes cannot be traced."""
    results = (moved(view, eqn, shape) for view in views)
    return tuple(dict.fromkeys(view for view in results if view is not None))


def product_axes(eqn: Any, made: Iterable[ParameterView]) -> tuple[ParameterView, ...]:
    """Views of a product that have at least two parameter axes, so that one may be of experts."""
    if eqn.primitive.name != "dot_general":
        return ()
    return tuple(m for m in made if parameter_rank(m) > 1)


def parameter_rank(view: ParameterView) -> int:
    """Number of axes of the array that come from the parameter."""
    return sum(any(part.label for part in parts) for parts in view.axes)


def looked_up(
    view: ParameterView, eqn: Any, chosen: bool, fixed: bool
) -> ParameterView:
    """`view` after a lookup, by indices that the example has `chosen` or that are `fixed`."""
    lengths = zip(view.axes, eqn.params["slice_sizes"])
    cut = labels(parts for parts, n in lengths if n < size(parts))
    if eqn.primitive.name == "gather":
        new = gather(view.axes, eqn, NONE if chosen else cut)
    else:
        new = resize(view.axes, eqn.outvars[0].aval.shape)
    lost = cut - labels(new)
    field = "looked_up" if chosen else "indexed" if fixed else "layers"
    return view._replace(axes=new)._replace(**{field: getattr(view, field) | lost})


def stacked(x: Value, n: int) -> Value:
    """`x` with a new first axis of `n` entries."""
    views = tuple(_add_first_axis(view, n) for view in x.views)
    return _across_loop(x, views, x.features and _add_first_axis(x.features, n))


def _add_first_axis(view: ParameterView, n: int) -> ParameterView:
    return view._replace(axes=(*repeated([n]), *view.axes))


def _across_loop(
    x: Value, views: tuple[ParameterView, ...], features: ParameterView | None
) -> Value:
    """`x` with other views, and without the fields that do not cross the boundary of a loop."""
    return Value(
        views,
        x.data,
        x.number,
        sources=x.sources,
        ancestors=x.ancestors,
        features=features,
        carries=x.carries,
    )


def loop_slice(x: Value, loop: int, serial: bool) -> Value:
    """One slice of `x` along its first axis in `loop`: a layer if `serial`, else an expert."""
    stack, views = "layers" if serial else "experts", []
    for view in x.views:
        numbers = getattr(view, stack) | labels(view.axes[:1])
        row = view._replace(axes=view.axes[1:], rows=view.rows | {loop})
        views.append(row._replace(**{stack: numbers}))
    features = x.features and x.features._replace(axes=x.features.axes[1:])
    return _across_loop(x, tuple(views), features)


def resized(x: Value, shape: Sequence[int]) -> Value:
    """`x` with axes of `shape`: the shard on one device, or the full array again."""
    views, made = (
        tuple(_resized_view(v, shape) for v in each) for each in (x.views, x.made)
    )
    features = x.features and _resized_view(x.features, shape)
    return x._replace(views=views, made=made, features=features)


def _resized_view(view: ParameterView, shape: Sequence[int]) -> ParameterView:
    return view._replace(axes=resize(view.axes, shape))


def use_of(by: str, view: ParameterView, side: int, product: Contraction) -> Use:
    """The use of `view` in a product with data; a gain if no axis of it is summed."""
    summed, batch = product.summed[side], product.batch[side]
    inputs = labels(view.axes[i] for i in summed)
    if view.gain or (not inputs and not view.links):
        outputs = labels(view.axes) - view.looked_up
        return Use("mul", view.looked_up, outputs, over=outputs)
    experts = labels(view.axes[i] for i in batch)
    free = (a for i, a in enumerate(view.axes) if i not in (*summed, *batch))
    outputs = labels(free)
    if not outputs and not view.links:  # chosen rows are outputs, matrices are experts
        return Use(by, inputs, view.looked_up, experts=experts)
    return Use(by, inputs, outputs, experts=experts | view.looked_up)


def in_product_order(
    views: Sequence[ParameterView], entry_views: Iterable[ParameterView]
) -> list[tuple[ParameterView, Labels, Labels]]:
    """Order the parameters of a product of parameters as data meets them.

    Return each view, the axes it sums with the parameter before it, and the axes it sums with
    those after it. Data enters at `entry_views`. A parameter that is not linked to them counts
    all its summed axes as inputs.
    """
    if not any(view.links for view in views):
        return [(view, NONE, NONE) for view in views]
    ordered: dict[str, tuple[ParameterView, Labels, Labels]] = {}
    reached = [(view, "") for view in entry_views]
    while reached:
        view, before = reached.pop(0)
        if view.path in ordered:
            continue
        inputs = frozenset(
            axis for axis, path in view.links if before and path == before
        )
        ordered[view.path] = view, inputs, view.summed - inputs
        next_paths = {path for _, path in view.links}
        reached += [(v, view.path) for v in views if v.path in next_paths]
    return [ordered.get(v.path, (v, v.summed, NONE)) for v in views]


def in_blocks(x: Value, side: int, product: Contraction) -> bool:
    """Whether a product sums over one part of a feature axis and batches over another part."""
    if x.features is None:
        return False
    sums, blocks = (
        labels(x.features.axes[i] for i in each[side])
        for each in (product.summed, product.batch)
    )
    return bool(sums & blocks)


def shared_with_data(view: ParameterView, beside: ParameterView | None) -> Labels:
    """Axes of `view` that line up with feature axes of the data `beside` it."""
    if beside is None:
        return NONE
    skip = len(beside.axes) - len(view.axes)  # a vector is broadcast along leading axes
    pairs = zip(view.axes, beside.axes[max(skip, 0) :])
    return labels(a for a, b in pairs if labels([b]))


def free_size(x: Value, summed: Iterable[int]) -> int:
    """Number of entries of `x` along the axes that are not summed."""
    summed_axes = {*summed}
    return max(
        math.prod(size(a) for i, a in enumerate(view.axes) if i not in summed_axes)
        for view in x.views
    )


def described(uses: Iterable[Use]) -> str:
    """Describe uses in words, for messages."""
    texts = set()
    for use in uses:
        text = f"{use.by} entry by entry"
        if use.by in PRODUCTS:
            text = f"{use.by} sums over {listed(use.inputs)}"
        elif use.by == "gather":
            text = f"gather looks up {listed(use.inputs)}"
        elif use.by == AS_DATA:
            text = "goes in as data does"
        texts.add(text)
    return ", ".join(sorted(texts))


def listed(axes: Labels) -> str:
    """Format axes, for messages."""
    return ", ".join(map(str, sorted(axes))) or "no axis"


def reduced(eqn: Any, data: Sequence[Value]) -> int:
    """Number of entries in a statistic that the result is, or is made of; 0 if none."""
    if eqn.primitive.name.startswith("reduce_"):
        shape = eqn.invars[0].aval.shape
        return math.prod(shape[axis] for axis in eqn.params.get("axes", ()))
    counts = [x.reduced for x in data]
    return max(counts) if all(counts) else 0


def normalized(name: str, xs: Sequence[Value]) -> bool:
    """Whether the result has a fixed size, because it was divided by a statistic."""
    activations = [x for x in xs if x.data and x.ancestors]
    if name in ("mul", "div") and len(activations) == 2:
        return bool(activations[0].reduced) != bool(activations[1].reduced)
    linear = name in LINEAR or name in ("mul", "div")
    return linear and bool(activations) and all(x.normalized for x in activations)


def activation_product(eqn: Any, data: Sequence[Value]) -> bool:
    """Whether the equation multiplies two different activations entry by entry."""
    two = eqn.primitive.name == "mul" and len({*map(id, eqn.invars)}) == 2
    return two and sum(bool(x.ancestors and not x.reduced) for x in data) == 2
