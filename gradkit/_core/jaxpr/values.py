"""What is known of an array while a model is followed: parameters it is made of, data, numbers."""

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


class View(NamedTuple):
    """A parameter in an array. Labels are axes of the parameter."""

    path: str
    axes: tuple[Axis, ...]  # of the array
    layers: Labels = NONE  # scanned over
    experts: Labels = NONE  # mapped over
    indexed: Labels = NONE  # of which the program takes an entry
    looked_up: Labels = NONE  # of which the example chooses entries
    links: frozenset[tuple[int, str]] = frozenset()  # summed with which parameter
    rows: frozenset[int] = frozenset()  # loops that give it a row at a time
    factor: float = 1.0  # the numbers it was multiplied by
    gain: bool = False  # multiplies another parameter, along some of its axes

    @property
    def summed(self) -> Labels:
        """What was multiplied away with other parameters, or with constants, whose path is ''."""
        return frozenset(axis for axis, _ in self.links)


class Factor(NamedTuple):
    """A number that data was multiplied by, not yet assigned to the parameters it is a factor of."""

    event: int
    number: float
    origins: frozenset[int]  # the uses of which the data was a sum, if of nothing else


Place = tuple[str, int]  # a path, and an axis of the parameter there
# How a place is cut: the step between entries, and how many.
Cut = tuple[Place, int, int]
Piece = tuple[Cut, int]  # and where it begins


class Value(NamedTuple):
    """What is known of an array. All but the first three are of data."""

    views: tuple[View, ...] = ()
    data: bool = False  # depends on the example
    number: float | None = None  # what all entries are
    factors: tuple[Factor, ...] = ()  # the numbers it was multiplied by
    origins: frozenset[int] = frozenset()  # the uses it is a sum of, if of nothing else
    sources: frozenset[str] = frozenset()  # the parameters of its products
    past: frozenset[str] = frozenset()  # all parameters it depends on
    score: int | None = None  # which product of two activations it is
    made: tuple[View, ...] = ()  # of which outputs its axes are
    features: View | None = None  # which axes of parameters its axes are: by place
    pieces: frozenset[Piece] = frozenset()  # cuts by which it came about
    carries: frozenset[int] = frozenset()  # loops by whose carry it is made
    reduced: int = 0  # how many entries were added up for a statistic
    normalized: bool = False  # divided by a statistic of its own
    terms: tuple[tuple[View, int], ...] = ()  # parameters it is times of, and the uses
    pairs: bool = False  # a product, entry by entry, of two activations


class Use(NamedTuple):
    """How a parameter met data."""

    by: str  # the primitive
    inputs: Labels = NONE
    outputs: Labels = NONE
    layers: Labels = NONE
    experts: Labels = NONE
    indexed: Labels = NONE
    at: int = 0  # its number, in the order of the program
    groups: int = 1  # of a convolution, of which each sums over channels of its own
    blocks: Labels = NONE  # outputs that number blocks of a diagonal
    over: Labels = NONE  # of an entrywise use, those that are features of the data too


class Score(NamedTuple):
    """A product of two activations."""

    size: int  # how many entries are summed
    scale: float  # by which the sum is multiplied
    sources: frozenset[str]  # whose products the activations are
    normalized: bool = False  # whether one of them has a size of its own


UNKNOWN = "unknown"  # begins the `by` of a use of which the axes say nothing
AS_DATA = "data"  # the `by` of a parameter that goes in as data does
STATISTICS = ("reduce_m", "reduce_s", "arg")  # what begins the names of primitives


def number(eqn: Any, xs: Sequence[Value]) -> float | None:
    """What all entries of the result are, if the operands tell."""
    rule, numbers = NUMBERS.get(eqn.primitive.name), [x.number for x in xs]
    if eqn.primitive.name == "integer_pow":
        rule = lambda a: a ** eqn.params["y"]
    if rule is None or None in numbers:
        return None
    try:
        found = rule(*numbers)
    except (ArithmeticError, ValueError):
        return None
    return None if isinstance(found, complex) else found


def multiplied(name: str, xs: Sequence[Value], x: Value) -> float | None:
    """By which number `x`, one of the operands, is multiplied; None where it is not linear."""
    if name in LINEAR:
        return 1.0
    if name not in ("mul", "div") or (name == "div" and xs[0] is not x):
        return None
    found = 1.0
    for other in (y for y in xs if y is not x):
        if other.data and other.past:
            return None
        found *= other.number or 1.0
    return 1 / found if name == "div" else found


def scaled(name: str, xs: Sequence[Value], x: Value) -> Value:
    """`x`, one of the operands, whose views know the number by which it is multiplied."""
    factor = multiplied(name, xs, x)
    if factor in (None, 1.0):  # what is not linear is as it is
        return x
    views = tuple(view._replace(factor=view.factor * factor) for view in x.views)
    return x._replace(views=views)


def moved(view: View, eqn: Any, shape: Sequence[int]) -> View | None:
    """`view` in a result of `shape`; None where its axes are lost."""
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


def through(view: View, kept: Mapping[int, int], shape: Sequence[int]) -> View:
    """Where the axes of an operand are in the result, of `shape`, of a product that `kept` some."""
    new = [
        view.axes[kept[i]] if i in kept else axis(NONE, n) for i, n in enumerate(shape)
    ]
    return View(view.path, resize(new, shape))


def placed(view: View) -> View:
    """A view of features: the axes of a parameter by their places."""
    return View(
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
    views: Iterable[View], eqn: Any, shape: Sequence[int]
) -> tuple[View, ...]:
    """The views in a result of `shape`, without those whose axes are lost."""
    found = (moved(view, eqn, shape) for view in views)
    return tuple(dict.fromkeys(view for view in found if view is not None))


def marks(eqn: Any, made: Iterable[View]) -> tuple[View, ...]:
    """What the axes of a product are made of, where it may be many side by side."""
    if eqn.primitive.name != "dot_general":
        return ()
    return tuple(m for m in made if rank(m) > 1)


def rank(view: View) -> int:
    """How many axes of an array are axes of a parameter."""
    return sum(any(part.label for part in parts) for parts in view.axes)


def looked_up(view: View, eqn: Any, chosen: bool, fixed: bool) -> View:
    """`view` in the result of a lookup with indices `chosen` by the example, or `fixed`."""
    lengths = zip(view.axes, eqn.params["slice_sizes"])
    cut = labels(parts for parts, n in lengths if n < size(parts))
    if eqn.primitive.name == "gather":
        new = gather(view.axes, eqn, NONE if chosen else cut)
    else:
        new = resize(view.axes, eqn.outvars[0].aval.shape)
    gone = cut - labels(new)
    field = "looked_up" if chosen else "indexed" if fixed else "layers"
    return view._replace(axes=new)._replace(**{field: getattr(view, field) | gone})


def stacked(x: Value, n: int) -> Value:
    """`n` of `x` along a new first axis."""
    views = tuple(_among(view, n) for view in x.views)
    return _outside(x, views, x.features and _among(x.features, n))


def _among(view: View, n: int) -> View:
    return view._replace(axes=(*repeated([n]), *view.axes))


def _outside(x: Value, views: tuple[View, ...], features: View | None) -> Value:
    """What is known of `x` beyond the loop it goes into or comes from, seen otherwise."""
    return Value(
        views,
        x.data,
        x.number,
        sources=x.sources,
        past=x.past,
        features=features,
        carries=x.carries,
    )


def entry(x: Value, loop: int, serial: bool) -> Value:
    """What `loop` is given of `x` at a time: of a layer if `serial`, of an expert if not."""
    stack, views = "layers" if serial else "experts", []
    for view in x.views:
        numbers = getattr(view, stack) | labels(view.axes[:1])
        row = view._replace(axes=view.axes[1:], rows=view.rows | {loop})
        views.append(row._replace(**{stack: numbers}))
    features = x.features and x.features._replace(axes=x.features.axes[1:])
    return _outside(x, tuple(views), features)


def resized(x: Value, shape: Sequence[int]) -> Value:
    """`x` in the part of `shape` that one device has of it, or whole again."""
    views, made = (tuple(_cut(v, shape) for v in each) for each in (x.views, x.made))
    features = x.features and _cut(x.features, shape)
    return x._replace(views=views, made=made, features=features)


def _cut(view: View, shape: Sequence[int]) -> View:
    return view._replace(axes=resize(view.axes, shape))


def use_of(by: str, view: View, side: int, product: Contraction) -> Use:
    """How a product with data uses `view`; one that sums over nothing is a gain."""
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


def in_order(
    views: Sequence[View], entered: Iterable[View]
) -> list[tuple[View, Labels, Labels]]:
    """The parameters of a product of parameters as data meets them, one after the other.

    Of each the axes that it sums with those before it and with those after it. Those that data
    does not reach from where it `entered` sum over all that they were multiplied by.
    """
    if not any(view.links for view in views):
        return [(view, NONE, NONE) for view in views]
    found: dict[str, tuple[View, Labels, Labels]] = {}
    reached = [(view, "") for view in entered]
    while reached:
        view, before = reached.pop(0)
        if view.path in found:
            continue
        inputs = frozenset(
            axis for axis, path in view.links if before and path == before
        )
        found[view.path] = view, inputs, view.summed - inputs
        next_paths = {path for _, path in view.links}
        reached += [(v, view.path) for v in views if v.path in next_paths]
    return [found.get(v.path, (v, v.summed, NONE)) for v in views]


def in_blocks(x: Value, side: int, product: Contraction) -> bool:
    """Whether a product sums over one part of an axis of features and works through another."""
    if x.features is None:
        return False
    sums, blocks = (
        labels(x.features.axes[i] for i in each[side])
        for each in (product.summed, product.batch)
    )
    return bool(sums & blocks)


def over(view: View, beside: View | None) -> Labels:
    """The axes of `view` that are features of the data `beside` it."""
    if beside is None:
        return NONE
    skip = len(beside.axes) - len(view.axes)  # of a vector that is broadcast
    pairs = zip(view.axes, beside.axes[max(skip, 0) :])
    return labels(a for a, b in pairs if labels([b]))


def free(x: Value, summed: Iterable[int]) -> int:
    """How many entries are not summed."""
    gone = {*summed}
    return max(
        math.prod(size(a) for i, a in enumerate(view.axes) if i not in gone)
        for view in x.views
    )


def described(uses: Iterable[Use]) -> str:
    """Uses in words."""
    words = set()
    for use in uses:
        said = f"{use.by} entry by entry"
        if use.by in PRODUCTS:
            said = f"{use.by} sums over {listed(use.inputs)}"
        elif use.by == "gather":
            said = f"gather looks up {listed(use.inputs)}"
        elif use.by == AS_DATA:
            said = "goes in as data does"
        words.add(said)
    return ", ".join(sorted(words))


def listed(axes: Labels) -> str:
    """Axes in words."""
    return ", ".join(map(str, sorted(axes))) or "no axis"


def reduced(eqn: Any, data: Sequence[Value]) -> int:
    """How many entries were added up, if the result is a statistic."""
    if eqn.primitive.name.startswith("reduce_"):
        shape = eqn.invars[0].aval.shape
        return math.prod(shape[axis] for axis in eqn.params.get("axes", ()))
    counts = [x.reduced for x in data]
    return max(counts) if all(counts) else 0


def normalized(name: str, xs: Sequence[Value]) -> bool:
    """Whether the result has a size of its own, by a division through a statistic."""
    made = [x for x in xs if x.data and x.past]
    if name in ("mul", "div") and len(made) == 2:
        return bool(made[0].reduced) != bool(made[1].reduced)
    linear = name in LINEAR or name in ("mul", "div")
    return linear and bool(made) and all(x.normalized for x in made)


def pairs(eqn: Any, data: Sequence[Value]) -> bool:
    """Whether two activations are multiplied entry by entry."""
    two = eqn.primitive.name == "mul" and len({*map(id, eqn.invars)}) == 2
    return two and sum(bool(x.past and not x.reduced) for x in data) == 2
