"""Plots of a race, of activations by size, and of losses by learning rate and size."""

import io
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gradkit._lab import report

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKS = "osD^vP"
SOFTWARE = "gradkit"  # in the metadata of a PNG


class Look(NamedTuple):
    """Colour, marker and line style of a recipe."""

    colour: str
    mark: str
    line: str


BASE = Look("#000000", "X", "--")


def curves(race: dict[str, Any]) -> bytes:
    """Loss curves at the best rates, and held-out loss by learning rate, as PNG.

    AdamW, the baseline, is black, dashed and on top.
    """
    figure = Figure(figsize=(9, 4), dpi=200, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    fall, sweep = figure.subplots(1, 2, sharey=True)
    others = _looks()
    looks = {n: BASE if n == "adamw" else next(others) for n in race["recipes"]}
    ranked = report.ranked(race)
    shown = [_sweep(sweep, name, result, looks[name]) for name, result in ranked]
    for name, result in ranked:
        _fall(fall, result, looks[name])
    _frame(fall, "At its best learning rate", "step", race)
    _frame(sweep, "Over the grid (largest mark: the best)", "learning rate", race)
    fall.set_ylabel("training loss, nats (moving mean)")
    sweep.set_ylabel("held-out loss, nats")
    sweep.tick_params(labelleft=True)
    sweep.set_xscale("log")
    figure.legend(handles=shown, frameon=False, loc="outside right upper")
    return _png(canvas)


def coordinates(results: dict[str, Any], over: str) -> bytes:
    """Change of every activation over the size, a panel a parametrization, as PNG.

    Passing sites are lines from dark to light in the order of the model, failing ones red.
    """
    figure = Figure(figsize=(4.2 * len(results), 3.8), dpi=200, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    for axes, (name, result) in zip(panels, results.items()):
        result.plot(axes)
        failing, lines = result.failures(), axes.get_lines()
        for i, line in enumerate(lines):
            shade = 0.75 * i / max(1, len(lines) - 1)
            fails = line.get_label() in failing
            line.set(color="#D62728" if fails else (shade, shade, shade), markersize=3)
            line.set(linewidth=1.2, alpha=0.8)
        verdict = (
            f"{len(failing)} of {len(lines)} sites fail" if failing else "all pass"
        )
        axes.set_title(f"{name}: {verdict}", fontsize=11)
        _sized(axes, result.sizes, over)
    for axes in panels[1:]:
        axes.set_ylabel("")
    panels[0].set_ylabel("mean change of an activation")
    return _png(canvas)


def transfers(results: dict[str, Any], over: str) -> bytes:
    """Loss over the learning rate, a panel a parametrization and a line a size, as PNG."""
    figure = Figure(figsize=(4.2 * len(results), 3.8), dpi=200, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(results), sharey=True, squeeze=False)[0]
    lows = [b.loss for result in results.values() for b in result.optima(1).values()]
    for axes, (name, result) in zip(panels, results.items()):
        result.plot(axes)
        for i, line in enumerate(axes.get_lines()):
            shade = (i // 2) / max(1, len(result.losses) - 1)
            line.set(color=(0.85 * shade, 0.35 + 0.3 * shade, 0.7 * (1 - shade)))
        axes.set_title(
            f"{name}: best rates {result.shift:.2f} doublings apart", fontsize=11
        )
        axes.set_ylim(min(lows) - 0.05, max(lows) + 0.9)
        axes.legend(title=over, frameon=False, fontsize=9)
        _clean(axes)
    for axes in panels[1:]:
        axes.set_ylabel("")
    return _png(canvas)


def _sized(axes: Axes, sizes: tuple[int, ...], over: str) -> None:
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel(over)
    _clean(axes)


def _clean(axes: Axes) -> None:
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _png(canvas: FigureCanvasAgg) -> bytes:
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": SOFTWARE})
    return buffer.getvalue()


def _looks() -> Iterator[Look]:
    """Distinct colours and markers; once they repeat, with other line styles."""
    for line in itertools.cycle(("-", ":", "-.")):
        for colour, mark in zip(COLOURS, MARKS):
            yield Look(colour, mark, line)


def _fall(axes: Axes, result: dict[str, Any], look: Look) -> None:
    curve = _array(result["curve"])
    (line,) = axes.plot(np.arange(1, len(curve) + 1), curve, look.line)
    line.set(color=look.colour, linewidth=1.8, zorder=3 if look is BASE else 2)


def _sweep(axes: Axes, name: str, result: dict[str, Any], look: Look) -> Line2D:
    rates, losses = result["rates"], _array(result["final_eval_loss"]).mean(axis=1)
    best, front = rates.index(result["best_rate"]), 3 if look is BASE else 2
    (line,) = axes.plot(rates, losses, look.line + look.mark, label=name)
    line.set(color=look.colour, linewidth=1.4, markersize=4, zorder=front)
    (star,) = axes.plot(rates[best], losses[best], look.mark)
    star.set(color=look.colour, markersize=9, zorder=front)
    return line


def _frame(axes: Axes, title: str, across: str, race: dict[str, Any]) -> None:
    every = [result["curve"] for result in race["recipes"].values()]
    start = max(1, len(every[0]) // 8)  # without the first fall, alike for all
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
    _clean(axes)


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)  # None becomes nan
