"""Constant factors that a model multiplies its parameters by, at two sizes."""

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
    """Add the factors found in the traces to `parameters`; return them, and notes on doubts.

    If the traced target model has fewer layers than `parameters`, the others take the factors of
    their twins in the base model.
    """
    with_factors, doubts = {}, []
    for path, p in parameters.items():
        at_target = path if path in target.uses else twins[path]
        factors = []
        for as_readout in (False, True) if p.role == "tied" else (None,):
            old, new = (
                _use_factors(base, twins[path], as_readout),
                _use_factors(target, at_target, as_readout),
            )
            if len(old) != len(new):
                old, new = [*dict.fromkeys(old)], [*dict.fromkeys(new)]
            factors.append(_common_factor(old, new))
            if factors[-1] is None:
                doubts.append(
                    f"{pattern(path)} is multiplied by several numbers that do not grow alike, "
                    f"{_format(old)} then {_format(new)}: its multipliers leave them out."
                )
        (old, new), *readout = [pair or (1.0, 1.0) for pair in factors]
        with_factors[path] = p._replace(base_factor=old, factor=new)
        if readout:
            ((old, new),) = readout
            with_factors[path] = with_factors[path]._replace(readout_factor=new / old)
    return with_factors, [*doubts, *_activation_notes(base, target)]


def _activation_notes(base: Trace, target: Trace) -> Iterator[str]:
    """Notes on factors of activations that are no sum of uses, if they change with size."""
    if len(base.unassigned_factors) == len(target.unassigned_factors):
        pairs = zip(
            base.unassigned_factors.values(), target.unassigned_factors.values()
        )
        for a, b in sorted({(a, b) for a, b in pairs if not math.isclose(a, b)}):
            yield (
                f"activations that are no product of parameters are multiplied by {a:.4g} then "
                f"{b:.4g}: no multiplier makes up for it."
            )


def _common_factor(old: list[float], new: list[float]) -> tuple[float, float] | None:
    """Factor at the base and target size, if the factors of all uses grow alike; else None."""
    ratios = [b / a for a, b in zip(old, new) if a and b]
    if len(old) != len(new) or any(not math.isclose(r, ratios[0]) for r in ratios):
        return None
    return (old[0], new[0]) if ratios else (1.0, 1.0)


def _use_factors(trace: Trace, path: str, as_readout: bool | None) -> list[float]:
    """Factors of uses, in order; of a tied table, of uses as the output matrix or of the others."""
    uses = trace.uses[path]
    if as_readout is not None:
        chosen = [use for use in uses if _is_readout_use(use, uses) == as_readout]
        uses = chosen or uses
    numbers_by_use = (sorted(trace.factors[use.at]) for use in uses)
    return [
        abs(math.prod(number for _, number in numbers)) for numbers in numbers_by_use
    ]


def _is_readout_use(use: Use, uses: Sequence[Use]) -> bool:
    """Whether a use of a table is as the output matrix."""
    first = next((u for u in uses if u.by == "gather"), uses[0])
    return use.by in PRODUCTS and (use.inputs, use.outputs) != (
        first.inputs,
        first.outputs,
    )


def _format(numbers: Collection[float]) -> str:
    return ", ".join(f"{x:.4g}" for x in numbers)
