"""Plots of a race, of activations by size, and of losses by learning rate and size."""

import io
import itertools
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import gradkit as gk

COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
SOFTWARE = "gradkit"  # in the metadata of a PNG


def race(found: gk.RaceTable) -> bytes:
    """Test loss over steps at the chosen hyperparameters, and all trials, as PNG."""
    figure = Figure(figsize=(9.6, 4), dpi=200, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2)
    found.plot(axes)
    figure.legend(
        *axes[0].get_legend_handles_labels(), frameon=False, loc="outside right upper"
    )
    figure.suptitle(found.summary or found.task, fontsize=9)
    return _png(canvas)


def profiles(steps: dict[str, np.ndarray], times: dict[str, np.ndarray]) -> bytes:
    """Performance profiles by steps and by time, as PNG; arrays are sorted ratios by task."""
    figure = Figure(figsize=(9.6, 4), dpi=200, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    looks = [(c, line) for line in ("-", "--", ":") for c in COLOURS]
    for axes, found, title in zip(panels, (steps, times), ("steps", "time")):
        for (name, ratios), (colour, line) in zip(
            found.items(), itertools.cycle(looks)
        ):
            x = np.concatenate([[1.0], ratios[ratios <= 4], [4.0]])
            y = np.searchsorted(ratios, x, side="right") / len(ratios)
            axes.step(x, y, where="post", label=name, color=colour, ls=line)
        axes.set(xlabel=f"times the best recipe's {title}", ylim=(-0.02, 1.02))
        _clean(axes)
    panels[0].set_ylabel("part of tasks")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, frameon=False, loc="outside right upper")
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
