"""A table of results, and what every experiment needs to fill one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import optax

import gradkit as gk
from gradkit._lab.claims.run import Tuned

Make = Callable[..., Any]  # hyperparameters -> transforms of a chain


class Sheet(NamedTuple):
    """One table, and what was done to fill it."""

    title: str
    what: str
    columns: list[str]
    rows: list[list[str]]


def markdown(sheet: Sheet) -> str:
    """The table, and above it what was done."""
    lines = [
        f"## {sheet.title}\n",
        sheet.what + "\n",
        f"| {' | '.join(sheet.columns)} |",
        "|" + "---|" * len(sheet.columns),
        *(f"| {' | '.join(row)} |" for row in sheet.rows),
    ]
    return "\n".join(lines) + "\n"


def chained(*parts: Any) -> optax.GradientTransformation:
    """A chain; a number or schedule in it is the learning rate."""
    steps: list[Any] = [
        part if isinstance(part, tuple) else gk.step_by_learning_rate(part)
        for part in parts
    ]
    return gk.chain(*steps)


def falling(rate: Any, steps: int) -> Any:
    """The rate that falls linearly to zero."""
    return gk.schedule_by_linear_decay(rate, steps=steps)


def number(values: Any) -> str:
    """Mean and standard error."""
    values = np.asarray(values, np.float64)
    if not np.all(np.isfinite(values)):
        return "diverged"
    if np.all(values == values[0]):
        return f"{values[0]:.3g}"
    return f"{values.mean():.3g} ± {values.std(ddof=1) / len(values) ** 0.5:.1g}"


def setting(found: Tuned) -> str:
    """The best setting."""
    return ", ".join(f"{x:.3g}" for x in found.setting) + "*" * found.at_edge
