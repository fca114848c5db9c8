"""The numbers by which a model multiplies its parameters, at two sizes."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from gradkit._core.jaxpr.primitives import PRODUCTS
from gradkit._core.jaxpr.trace import Trace
from gradkit._core.jaxpr.values import Use
from gradkit.parametrization.parameter import Parameter, pattern


def joined(
    parameters: Mapping[str, Parameter],
    base: Trace,
    target: Trace,
    twins: Mapping[str, str],
) -> tuple[dict[str, Parameter], list[str]]:
    """The parameters with their factors, and what is to be said of those in doubt.

    A model may have more layers than the one that was followed at the target size: then they
    are those of the base model.
    """
    found, said = {}, []
    for path, p in parameters.items():
        at_target = path if path in target.uses else twins[path]
        factors = []
        for back in (False, True) if p.role == "tied" else (None,):
            old, new = _all(base, twins[path], back), _all(target, at_target, back)
            if len(old) != len(new):
                old, new = [*dict.fromkeys(old)], [*dict.fromkeys(new)]
            factors.append(_one(old, new))
            if factors[-1] is None:
                said.append(
                    f"{pattern(path)} is multiplied by several numbers that do not grow alike, "
                    f"{_list(old)} then {_list(new)}: its multipliers leave them out."
                )
        (old, new), *back = [pair or (1.0, 1.0) for pair in factors]
        found[path] = p._replace(base_factor=old, factor=new)
        if back:
            ((old, new),) = back
            found[path] = found[path]._replace(readout_factor=new / old)
    return found, [*said, *_of_no_parameter(base, target)]


def _of_no_parameter(base: Trace, target: Trace) -> Iterator[str]:
    """What is to be said of factors of activations that no parameter made."""
    if len(base.lost) == len(target.lost):
        pairs = zip(base.lost.values(), target.lost.values())
        for a, b in sorted({(a, b) for a, b in pairs if not math.isclose(a, b)}):
            yield (
                f"activations that are no product of parameters are multiplied by {a:.4g} then "
                f"{b:.4g}: no multiplier makes up for it."
            )


def _one(old: list[float], new: list[float]) -> tuple[float, float] | None:
    """The factor at both sizes, if those of all uses grow alike."""
    ratios = [b / a for a, b in zip(old, new) if a and b]
    if len(old) != len(new) or any(not math.isclose(r, ratios[0]) for r in ratios):
        return None
    return (old[0], new[0]) if ratios else (1.0, 1.0)


def _all(trace: Trace, path: str, back: bool | None) -> list[float]:
    """The factor of every use, in order; of a tied table, in or `back` out."""
    uses = trace.uses[path]
    if back is not None:
        chosen = [use for use in uses if _goes_out(use, uses) == back]
        uses = chosen or uses
    each = (sorted(trace.factors[use.at]) for use in uses)
    return [abs(math.prod(number for _, number in found)) for found in each]


def _goes_out(use: Use, uses: Sequence[Use]) -> bool:
    """Whether a use of a table is that of the output matrix."""
    first = next((u for u in uses if u.by == "gather"), uses[0])
    return use.by in PRODUCTS and (use.inputs, use.outputs) != (
        first.inputs,
        first.outputs,
    )


def _list(numbers: Collection[float]) -> str:
    return ", ".join(f"{x:.4g}" for x in numbers)
