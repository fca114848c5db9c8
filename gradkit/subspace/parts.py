"""Whether the parts of a projection are parts, and not the functions that make them."""

import inspect
from typing import Any

from gradkit._core import check
from gradkit.subspace.bases import Basis
from gradkit.subspace.residuals import Residual
from gradkit.subspace.schedules import UpdateSchedule

KINDS = {"basis": Basis, "refresh": UpdateSchedule, "rest": Residual}


def check_parts(method: str, align: Any, **parts: Any) -> None:
    """Each part is of its kind."""
    for what, part in parts.items():
        kind = KINDS[what]
        _check_part(method, what, kind.__name__, part, isinstance(part, kind))
    _check_part(method, "align", "Align", align, align is None or _takes_three(align))


def _check_part(method: str, what: str, kind: str, part: Any, fits: bool) -> None:
    name = getattr(part, "__name__", repr(part))
    remedy = f"Call it: {name}()." if callable(part) else "gradkit.subspace has some."
    check.holds(method, fits, f"{what} must be a subspace.{kind}", name, remedy)


def _takes_three(align: Any) -> bool:
    """Whether it can be called with a state, turns, and the updates so far."""
    try:
        inspect.signature(align).bind(None, None, None)
    except TypeError:
        return False
    return True
