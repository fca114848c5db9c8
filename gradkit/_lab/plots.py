"""One picture of a race: how the loss falls, and what the learning rate does to it."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gradkit._lab import report

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
MARKS = "osD^vPX"
Look = dict[str, Any]


def curves(race: dict[str, Any]) -> bytes:
    """Loss curves at the best rates, and held-out loss by learning rate, as PNG."""
    figure = Figure(figsize=(9, 4), dpi=200, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    fall, sweep = figure.subplots(1, 2, sharey=True)
    for place, (name, result) in enumerate(report.ranked(race)):
        style = "-" if place < len(COLOURS) else "--"
        look = {"color": COLOURS[place % len(COLOURS)], "linestyle": style}
        _fall(fall, name, result, look)
        _sweep(sweep, result, look | {"marker": MARKS[place % len(MARKS)]})
    _frame(fall, "At its best learning rate", "step", race)
    _frame(sweep, "Over the whole grid (largest mark: the best)", "learning rate", race)
    fall.set_ylabel("training loss, nats")
    sweep.set_ylabel("held-out loss, nats")
    sweep.tick_params(labelleft=True)
    sweep.set_xscale("log")
    fall.legend(frameon=False, fontsize=10, loc="upper right")
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def _fall(axes: Axes, name: str, result: dict[str, Any], look: Look) -> None:
    curve = _array(result["curve"])
    axes.plot(np.arange(1, len(curve) + 1), curve, label=name, linewidth=1.8, **look)


def _sweep(axes: Axes, result: dict[str, Any], look: Look) -> None:
    rates, losses = result["rates"], _array(result["final_eval_loss"]).mean(axis=1)
    best = rates.index(result["best_rate"])
    axes.plot(rates, losses, linewidth=1.2, markersize=4, **look)
    axes.plot(rates[best], losses[best], markersize=9, **look)


def _frame(axes: Axes, title: str, across: str, race: dict[str, Any]) -> None:
    every = [result["curve"] for result in race["recipes"].values()]
    start = max(1, len(every[0]) // 8)  # the first fall is alike for all: leave it out
    seen = np.concatenate([_array(curve[start - 1 :]) for curve in every])
    held_out = [_array(r["final_eval_loss"]).ravel() for r in race["recipes"].values()]
    low = np.nanmin(np.concatenate([seen, *held_out]), initial=np.inf)
    high = np.nanmax(seen, initial=-np.inf)
    if high > 5 * low > 0:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.2, high * 1.2)
    elif high > low:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(across)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)  # None becomes nan
