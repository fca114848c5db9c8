"""What a parametrization cannot do for a model: forward multipliers, attention scores."""

import math
from collections.abc import Iterable, Mapping

from gradkit._core.trace import Trace
from gradkit._core.values import Score
from gradkit._core.width import Parameter, pattern


def of_parameters(
    parameters: Mapping[str, Parameter], trace: Trace | None
) -> Iterable[str]:
    """On single parameters, by what `trace` found."""
    for path, p in parameters.items():
        if p.role == "tied":
            yield (
                f"{path} is tied: it reads inputs and makes outputs. Multiply the outputs by "
                f"{1 / p.growth_out:.4g}, base over target width: no optimizer can do it."
            )
        if p.kind == "hidden" and trace and path in trace.ranked:
            yield (
                f"{path}: what it makes is ranked. If it routes to experts, whose number grows, "
                f"say so: roles={{{path!r}: 'router'}}."
            )
    guessed = [path for path, p in parameters.items() if len(p.shape) > 2 and not trace]
    if guessed:
        yield (
            f"{', '.join(guessed)}: all axes but the last count as inputs, by convention. "
            "Pass apply and an example to be sure."
        )


def of_scores(base: list[Score], other: list[Score]) -> Iterable[str]:
    """On products of activations over a width that shrink with its root only."""
    if len(base) != len(other):  # other depths: layers are alike
        base, other = (
            [*{s[:2]: s for s in scores}.values()] for scores in (base, other)
        )
    if len(base) != len(other):
        yield "products of activations could not be compared between the two sizes"
        return
    for old, new in zip(base, other):
        if old.size != new.size and old.scale * new.scale > 0:
            exponent = math.log(new.scale / old.scale) / math.log(new.size / old.size)
            if abs(exponent + 0.5) < 0.1:
                names = ", ".join(sorted({*map(pattern, old.sources)})) or "the example"
                yield (
                    f"scores of {names} sum over a width, {old.size} then {new.size}, and are "
                    "divided by its root. Features of wide models align: divide by the width, "
                    "times the root of the base width to leave the base model as it is."
                )
