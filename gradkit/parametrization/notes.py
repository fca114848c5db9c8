"""Notes on what the user must change in the model: forward multipliers, attention scales."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from gradkit._core.jaxpr.trace import Trace
from gradkit._core.jaxpr.values import Score
from gradkit.parametrization.parameter import Parameter, expression, pattern
from gradkit.parametrization.scaling import OPTIMIZERS, READOUT, grown


def of_parameters(
    parameters: Mapping[str, Parameter], trace: Trace | None
) -> Iterable[str]:
    """Notes on parameters, from `trace` if there is one; like layers share a note."""
    inner_outputs: dict[tuple[str, float], list[str]] = defaultdict(list)
    ranked = set()
    for path, p in parameters.items():
        if p.role == "tied" and not math.isclose(forward := _forward(p), 1):
            yield (
                f"{path} is tied: it reads inputs and makes outputs. Multiply the outputs by "
                f"{forward:.4g} as forward multiplier: no optimizer can do it."
            )
        followed = trace is not None and path in trace.feeds_products
        if followed and p.kind == "output" and (forward := _forward(p)) != 1:
            inner_outputs[pattern(path), forward].append(path)
        if trace is not None and path in trace.ranked and p.kind == "hidden":
            ranked.add(expression(path))
    for (_, forward), (first, *others) in inner_outputs.items():
        name = first + f" and {len(others)} like it" * bool(others)
        yield (
            f"{name}: sums over a width inside the model and makes what does not grow. Multiply "
            f"what it makes by {forward:.4g} as forward multiplier, or use a rule that needs "
            "none: transfer_by_plain_mup, with rescale_init(..., rule='plain_mup'). What it makes at "
            "random fades with the width until it has learned: start it at zero, where no other "
            "zero stands in series."
        )
    for rule in sorted(ranked):
        yield (
            f"{rule}: what it makes is ranked. If it routes to experts, whose number grows, "
            f"say so: roles={{{rule!r}: 'router'}}."
        )
    matrices = [path for path, p in parameters.items() if p.inputs and not trace]
    guessed = [k for k in matrices if parameters[k].why.startswith("convention")]
    if guessed:
        yield (
            f"{', '.join(dict.fromkeys(map(pattern, guessed)))}: all axes but the last count as inputs, by convention. "
            "Pass apply and an example to be sure."
        )
    for first, second in sorted(trace.guessed_orders if trace else ()):
        yield (
            f"{first} and {second} are multiplied before they meet data. That {first} goes into "
            f"{second} as data does is a guess of the order: if it is its output matrix, say "
            f"roles={{{expression(first)!r}: 'output'}}."
        )


def _forward(parameter: Parameter) -> float:
    """Forward multiplier of a parameter under muP."""
    return float(grown(READOUT, parameter, OPTIMIZERS["adam"]).forward)


def of_scores(
    base: Sequence[Score], other: Sequence[Score], growths: Collection[float]
) -> Iterable[str]:
    """Notes on products of activations that sum over a width and are not divided by it.

    A product sums over a width if its length grows by one of `growths`.
    """
    if len(base) != len(other):  # another depth: compare distinct scores only
        base, other = (
            [*{(s.size, s.scale): s for s in scores}.values()]
            for scores in (base, other)
        )
    if len(base) != len(other):
        yield "products of activations could not be compared between the two sizes"
        return
    for old, new in zip(base, other):
        if old.scale * new.scale <= 0 or old.normalized:
            continue
        if {*map(pattern, old.sources)} != {*map(pattern, new.sources)}:
            continue  # the order of products may depend on sizes
        if not any(math.isclose(new.size / old.size, growth) for growth in growths):
            continue
        exponent = math.log(new.scale / old.scale) / math.log(new.size / old.size)
        if abs(exponent + 1) < 0.1:
            continue
        names = ", ".join(sorted({*map(pattern, old.sources)})) or "the example"
        by = f"multiplied by its power {exponent:.2g}"
        if abs(exponent) < 0.1:
            by = "not divided by it"
        if abs(exponent + 0.5) < 0.1:
            by = "divided by its root"
        yield (
            f"scores of {names} sum over a width, {old.size} then {new.size}, and are {by}. "
            "Features of wide models align: divide by the width, times what keeps the base "
            "model as it is."
        )


def not_compared(error: ValueError) -> str:
    """Note that the base model could not be traced."""
    return (
        "products of activations and factors in the model were not looked at: "
        f"{str(error).splitlines()[0]}"
    )


def of_depth(error: Exception) -> str:
    """Note that a model of the target width and base depth could not be traced."""
    return (
        "factors in the model that go with its width are not told from those that go with its "
        f"depth: {str(error).splitlines()[0]}. Pass init, and a name for each size."
    )
