"""Axes to draw on; matplotlib is imported only where none are given."""

import importlib
from typing import Any

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
