"""Statements of docstrings; those of `State:` and `Flops:` are formulas of a leaf's shape."""

import functools
import inspect
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from gradkit.testing._compare import Undocumented
from gradkit.testing._subject import Subject

Shapes = Mapping[str, tuple[int, ...]]


class Stated(NamedTuple):
    """One stated number."""

    leaf: str  # what one leaf takes
    once: str  # what the whole tree takes besides
    inner: list[str]  # the arguments whose own number is added
    entries: str | None  # the size of the leaves that those are given, if another one
    arguments: Mapping[str, Any]  # names the formulas may use

    def total(self, shapes: Shapes) -> float:
        """The number for leaves of these shapes, without that of `inner`."""
        once = _evaluate(self.once, dict(self.arguments))
        return once + sum(self._leaves(self.leaf, shapes).values())

    def of_leaf(self, path: str, shape: tuple[int, ...]) -> float:
        """The number of one leaf."""
        return self._leaves(self.leaf, {path: shape})[path]

    def shapes_inside(self, shapes: Shapes) -> Shapes:
        """The shapes of the leaves that `inner` is given."""
        if self.entries is None:
            return shapes
        sizes = self._leaves(self.entries, shapes)
        return {path: (1, int(size)) for path, size in sizes.items()}

    def _leaves(self, formula: str, shapes: Shapes) -> dict[str, float]:
        return {
            path: _evaluate(formula, {**self.arguments, **_measures(path, shape)})
            for path, shape in shapes.items()
        }


def name(s: Subject) -> str:
    """The name of the factory."""
    return getattr(_function(s), "__name__", "")


def docstring(s: Subject) -> str:
    """The factory's docstring, in one line."""
    return " ".join((inspect.getdoc(_function(s)) or "").split())


def words(s: Subject, part: str) -> str | None:
    """The text of the factory's docstring under `part`; None where it has no such part."""
    text = inspect.getdoc(_function(s)) or ""
    found = re.search(rf"^{part}:(.*?)(?=^\S|^$|\Z)", text, re.DOTALL | re.MULTILINE)
    return " ".join(found[1].split()) if found else None


def _function(s: Subject) -> Any:
    """The factory, without the arguments that were filled in."""
    function = s.factory
    while isinstance(function, functools.partial):
        function = function.func
    return function


def stated(s: Subject, part: str) -> Stated:
    """The number that the factory's docstring states under `part`."""
    try:
        return stated_in(words(s, part) or "", s.arguments)
    except Undocumented:
        raise Undocumented(f"the docstring states no `{part}: ... a leaf`") from None


def stated_in(said: str, arguments: Mapping[str, Any]) -> Stated:
    """The number that is stated in a part of a docstring, for these arguments of the factory.

    Such as "State: `8*size` bytes a leaf, `4` once, and the state of `inner`", which may go on
    "on leaves of `rank*cols` entries". A formula is a Python expression of the arguments,
    `size`, `cols` (the last axis), `rows` (all others), `ndim`, `path`, `min`, `max`, `range`.
    """
    said = " ".join(said.split())
    leaf = re.search(r"`([^`]+)`( bytes)? a leaf", said)
    if not leaf:
        raise Undocumented(f"no `... a leaf` is stated in {said!r}")
    once = re.search(r"`([^`]+)`( bytes)? once", said)
    inner = re.findall(r"\bof `(\w+)`", said)
    entries = re.search(r"on leaves of `([^`]+)` entries", said)
    return Stated(
        leaf[1],
        once[1] if once else "0",
        inner,
        entries[1] if entries else None,
        arguments,
    )


def _measures(path: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """Numbers of a leaf that a formula may name."""
    rows, cols = math.prod(shape[:-1]), (1, *shape)[-1]
    sizes = {"size": rows * cols, "rows": rows, "cols": cols}
    return {"path": path, "ndim": len(shape), **sizes}


def _evaluate(formula: str, names: dict[str, Any]) -> float:
    """The value of a formula."""
    known = {"min": min, "max": max, "range": range}
    return eval(formula, {"__builtins__": known, **names})
