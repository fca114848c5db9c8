"""The numbers a docstring states: `State:` and `Flops:`, formulas of a leaf's shape."""

import functools
import inspect
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from gradkit.testing._compare import Unstated
from gradkit.testing._subject import Subject


class Stated(NamedTuple):
    """One stated number."""

    leaf: str  # Python expression: what one leaf takes
    once: str  # Python expression: what the whole tree takes besides
    inner: list[str]  # the arguments whose own number is added
    arguments: Mapping[str, Any]  # names the expressions may use

    def __call__(self, shapes: Mapping[str, tuple[int, ...]]) -> float:
        """The number for leaves of these shapes."""
        known = {**self.arguments, "min": min, "max": max}
        total = evaluate(self.once, known)
        for shape in shapes.values():
            rows, cols = (1, 1, *shape)[-2:] if len(shape) > 1 else (math.prod(shape), 1)
            of_leaf = {"size": math.prod(shape), "rows": rows, "cols": cols}
            total += evaluate(self.leaf, {**known, **of_leaf, "ndim": len(shape)})
        return total


def stated(s: Subject, part: str) -> Stated:
    """What the factory's docstring says under `part`.

    Such as "State: `8*size` bytes a leaf, `4` once, and the state of `inner`." A formula may use
    `size`, `rows` and `cols` (the last two axes), `ndim`, `min`, `max` and the arguments.
    """
    function = s.factory
    while isinstance(function, functools.partial):
        function = function.func
    text = inspect.getdoc(function) or ""
    found = re.search(rf"^{part}:(.*?)(?=^\S|^$|\Z)", text, re.DOTALL | re.MULTILINE)
    leaf = re.search(r"`([^`]+)`[\s\w]* a\s+leaf", found[1]) if found else None
    if not found or not leaf:
        raise Unstated(f"the docstring states no `{part}: ... a leaf`")
    once = re.search(r"`([^`]+)`[\s\w]* once", found[1])
    inner = re.findall(r"\bof\s+`(\w+)`", found[1])
    return Stated(leaf[1], once[1] if once else "0", inner, s.arguments)


def evaluate(expression: str, names: Mapping[str, Any]) -> float:
    """The value of a stated expression."""
    return eval(expression, {"__builtins__": {}}, dict(names))
