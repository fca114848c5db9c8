"""The numbers by which a model multiplies its parameters, at two sizes."""

import math
from collections.abc import Collection, Mapping, Sequence

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
    said: list[str] = []

    def one(path: str, p: Parameter) -> Parameter:
        at_target = path if path in target.uses else twins[path]
        pairs = base, twins[path], target, at_target
        if p.role == "tied":
            (old, new), (old_back, new_back) = (
                _factors(*pairs, back=back) for back in (False, True)
            )
            back = new_back / old_back
            return p._replace(base_factor=old, factor=new, readout_factor=back)
        old, new = _factors(*pairs)
        return p._replace(base_factor=old, factor=new)

    def _factors(
        base: Trace, twin: str, target: Trace, path: str, back: bool | None = None
    ) -> tuple[float, float]:
        old, new = (_all(t, k, back) for t, k in ((base, twin), (target, path)))
        if len(old) != len(new):
            old, new = [*dict.fromkeys(old)], [*dict.fromkeys(new)]
        ratios = [b / a for a, b in zip(old, new) if a and b]
        if len(old) != len(new) or any(not math.isclose(r, ratios[0]) for r in ratios):
            said.append(
                f"{pattern(path)} is multiplied by several numbers that do not grow alike, "
                f"{_list(old)} then {_list(new)}: its multipliers leave them out."
            )
            return 1.0, 1.0
        return (old[0], new[0]) if ratios else (1.0, 1.0)

    found = {path: one(path, p) for path, p in parameters.items()}
    lost = [*base.lost.values()], [*target.lost.values()]
    if len(lost[0]) == len(lost[1]):
        grown = {(a, b) for a, b in zip(*lost) if not math.isclose(a, b)}
        said += [
            f"activations that are no product of parameters are multiplied by {a:.4g} then "
            f"{b:.4g}: no multiplier makes up for it."
            for a, b in sorted(grown)
        ]
    return found, said


def _all(trace: Trace, path: str, back: bool | None) -> list[float]:
    """The factor of every use, in order; of a tied table, in or `back` out."""
    uses = [use for _, use in sorted(trace.uses[path].items())]
    if back is not None:
        chosen = [use for use in uses if _goes_out(use, uses) == back]
        uses = chosen or uses
    return [abs(trace.factor(use)) for use in uses]


def _goes_out(use: Use, uses: Sequence[Use]) -> bool:
    """Whether a use of a table is that of the output matrix."""
    first = next((u for u in uses if u.by == "gather"), uses[0])
    return use.by in PRODUCTS and (use.inputs, use.outputs) != (
        first.inputs,
        first.outputs,
    )


def _list(numbers: Collection[float]) -> str:
    return ", ".join(f"{x:.4g}" for x in numbers)
