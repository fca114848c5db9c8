"""Axes to draw on; matplotlib is imported only where none are given."""

import importlib
import math
from typing import Any

import numpy as np

from gradkit._core.call import error


def axes_or_new(method: str, axes: Any = None) -> Any:
    """`axes`, or those of a new figure of `matplotlib.pyplot`."""
    if axes is not None:
        return axes
    try:
        pyplot = importlib.import_module("matplotlib.pyplot")
    except ImportError as missing:
        text = "axes must be given where matplotlib is not installed, got None."
        raise error(ImportError, method, f"{text} pip install matplotlib.") from missing
    return pyplot.subplots(layout="constrained")[1]


def log_axis(axes: Any, low: float, high: float) -> None:
    """Make x logarithmic from `low` to `high`; within three decades, label 1, 2 and 5 of each."""
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    if high < 1e3 * low:
        decades = np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        ticks = np.outer(10.0**decades, [1, 2, 5]).ravel()
        ticks = ticks[(low <= ticks) & (ticks <= high)]
        axes.set_xticks(ticks, [f"{x:.3g}" for x in ticks])
        axes.minorticks_off()


def legend_above(axes: Any) -> None:
    """A legend in one line above the axes, where nothing is drawn."""
    count = len(axes.get_legend_handles_labels()[0])
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=count)


def not_finite(count: Any, what: str = "gradients") -> str:
    """How many were not finite, for a title; where none were, all were 0."""
    return f"not finite: {count} of the {what}" if count else f"all {what} are 0"
