"""Whether activations are divided by statistics of their own, so that their size is known."""

import math
from collections.abc import Sequence
from typing import Any

from gradkit._core.jaxpr.primitives import LINEAR
from gradkit._core.jaxpr.values import Value


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
