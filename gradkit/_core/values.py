"""What is known of an array while a model is followed: parameters it is made of, data, numbers."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gradkit._core.axes import (
    NONE,
    Axis,
    Labels,
    gather,
    labels,
    move,
    product,
    repeated,
    resize,
    size,
)
from gradkit._core.primitives import LINEAR, NUMBERS


class View(NamedTuple):
    """A parameter in an array. Labels are axes of the parameter."""

    path: str
    axes: tuple[Axis, ...]  # of the array
    layers: Labels = NONE  # scanned over
    experts: Labels = NONE  # mapped over
    picked: Labels = NONE  # of which the program takes an entry
    looked: Labels = NONE  # of which the example chooses entries
    summed: Labels = NONE  # multiplied away with another parameter
    rows: frozenset[int] = frozenset()  # loops that give it a row at a time


class Value(NamedTuple):
    """What is known of an array."""

    views: tuple[View, ...] = ()
    data: bool = False  # depends on the example
    number: float | None = None  # what all entries are
    scale: float = 1.0  # of data: the numbers it was multiplied by
    sources: frozenset[str] = frozenset()  # of data: the parameters of its products
    score: int | None = None  # of data: which product of two activations it is
    made: tuple[View, ...] = ()  # of data: of which outputs its axes are
    carries: frozenset[int] = frozenset()  # loops by whose carry it is made


class Use(NamedTuple):
    """How a parameter met data."""

    by: str  # the primitive
    inputs: Labels = NONE
    outputs: Labels = NONE
    layers: Labels = NONE
    experts: Labels = NONE
    picked: Labels = NONE


class Score(NamedTuple):
    """A product of two activations."""

    size: int  # how many entries are summed
    scale: float  # by which the sum is multiplied
    sources: frozenset[str]  # whose products the activations are


UNKNOWN = "unknown"  # begins the `by` of a use of which the axes say nothing


def constant(x: Any) -> Value:
    """The value of a literal."""
    kind = getattr(x, "dtype", type(x))
    real = jnp.issubdtype(kind, np.number) and not jnp.issubdtype(
        kind, np.complexfloating
    )
    return Value(
        number=float(np.asarray(x).item()) if real and np.size(x) == 1 else None
    )


def number(eqn: Any, xs: Sequence[Value]) -> float | None:
    """What all entries of the result are, if the operands tell."""
    rule, numbers = NUMBERS.get(eqn.primitive.name), [x.number for x in xs]
    if rule is None or None in numbers:
        return None
    try:
        found = rule(*numbers)
    except (ArithmeticError, ValueError):
        return None
    return None if isinstance(found, complex) else found


def scale(name: str, xs: Sequence[Value]) -> tuple[float, float, int | None]:
    """By what the result was multiplied, now and in all, and which score it is, if known."""
    known = {(1.0, x.scale, x.score) for x in xs if x.data}
    if name in LINEAR and len(known) == 1:
        return known.pop()
    match name, xs:
        case (("mul" | "div"), (x, y)) if not y.data:
            factor = y.number or 1.0
        case "mul", (y, x) if not y.data:
            factor = y.number or 1.0
        case _:
            return 1.0, 1.0, None
    factor = 1 / factor if name == "div" else factor
    return factor, x.scale * factor, x.score


def moved(view: View, eqn: Any, shape: Sequence[int]) -> View | None:
    """`view` in a result of `shape`; None where its axes are lost."""
    axes = move(view.axes, eqn, shape)
    if axes is None:
        return None
    picked = view.picked
    if eqn.primitive.name in ("slice", "split"):
        cut = [a for a, b in zip(view.axes, axes) if size(a) > size(b) == 1]
        picked |= labels(cut)
    elif eqn.primitive.name == "unstack":
        picked |= labels([view.axes[eqn.params["axis"]]])
    return view._replace(axes=axes, picked=picked)


def moved_all(
    views: Iterable[View], eqn: Any, shape: Sequence[int]
) -> tuple[View, ...]:
    """The views in a result of `shape`, without those whose axes are lost."""
    found = (moved(view, eqn, shape) for view in views)
    return tuple(dict.fromkeys(view for view in found if view is not None))


def marks(made: Iterable[tuple[int, View]], eqn: Any) -> tuple[View, ...]:
    """What the axes of a product are made of, where it may be many side by side."""
    if eqn.primitive.name != "dot_general":
        return ()
    found = (View(m.path, product(m.axes, eqn, side)) for side, m in made)
    return tuple(m for m in found if sum(bool(labels([a])) for a in m.axes) > 1)


def looked_up(view: View, eqn: Any, chosen: bool, fixed: bool) -> View:
    """`view` in the result of a lookup with indices `chosen` by the example, or `fixed`."""
    lengths = zip(view.axes, eqn.params["slice_sizes"])
    cut = labels(parts for parts, n in lengths if n < size(parts))
    if eqn.primitive.name == "gather":
        new = gather(view.axes, eqn, NONE if chosen else cut)
    else:
        new = resize(view.axes, eqn.outvars[0].aval.shape)
    gone = cut - labels(new)
    field = "looked" if chosen else "picked" if fixed else "layers"
    return view._replace(axes=new)._replace(**{field: getattr(view, field) | gone})


def stacked(x: Value, n: int) -> Value:
    """`n` of `x` along a new first axis."""
    views = (view._replace(axes=(*repeated([n]), *view.axes)) for view in x.views)
    return Value(tuple(views), x.data, x.number, sources=x.sources, carries=x.carries)


def entry(x: Value, loop: int, serial: bool) -> Value:
    """What `loop` is given of `x` at a time: of a layer if `serial`, of an expert if not."""

    def one(view: View) -> View:
        first, rest = labels(view.axes[:1]), view.axes[1:]
        view = view._replace(axes=rest, rows=view.rows | {loop})
        if serial:
            return view._replace(layers=view.layers | first)
        return view._replace(experts=view.experts | first)

    views = tuple(map(one, x.views))
    return Value(views, x.data, x.number, sources=x.sources, carries=x.carries)


def resized(x: Value, shape: Sequence[int]) -> Value:
    """`x` in the part of `shape` that one device has of it, or whole again."""
    views, made = (
        tuple(view._replace(axes=resize(view.axes, shape)) for view in each)
        for each in (x.views, x.made)
    )
    return x._replace(views=views, made=made)


def met(by: str, view: View, summed: Collection[int], batch: Collection[int]) -> Use:
    """How a product with data uses `view`; one that sums over nothing is a gain."""
    if not summed and not view.summed:
        return Use("mul", view.looked, labels(view.axes) - view.looked)
    inputs = labels(view.axes[i] for i in summed)
    experts = labels(view.axes[i] for i in batch)
    free = (a for i, a in enumerate(view.axes) if i not in (*summed, *batch))
    outputs = labels(free)
    if inputs:
        outputs |= view.summed
    else:
        inputs = view.summed
    if not outputs:  # chosen rows are outputs, chosen matrices are experts
        return Use(by, inputs, view.looked, experts=experts)
    return Use(by, inputs, outputs, experts=experts | view.looked)


def sources(xs: Iterable[Value]) -> frozenset[str]:
    """All that the data is made of."""
    return frozenset().union(*(x.sources for x in xs))


def carries(xs: Iterable[Value]) -> frozenset[int]:
    """All loops by whose carry they are made."""
    return frozenset().union(*(x.carries for x in xs))
