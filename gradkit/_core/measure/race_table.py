"""The result of a race: recipes at their best hyperparameters, side by side."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gradkit._core import table
from gradkit._core.measure import fit, sweep_table
from gradkit._core.measure.fit import Estimate
from gradkit._core.measure.space import Point
from gradkit._core.measure.sweep_table import Pick, SweepTable

BASE = "adamw"  # others are measured by it where it takes part
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = "-", ":", "-."


class Result(NamedTuple):
    """What a race found about one recipe."""

    trials: SweepTable  # tuning; its held-out loss is the validation loss
    pick: Pick | None  # the best of them; None if all diverged
    report: SweepTable | None  # the pick from other seeds, by the test loss
    seconds_per_step: float  # of one run with nothing beside it
    seconds_to_compile: float
    state_bytes: int  # of one run

    @property
    def point(self) -> Point | None:
        """The hyperparameters that were chosen."""
        return None if self.pick is None else self.pick.point

    @property
    def losses(self) -> np.ndarray:
        """The test loss of each seed at the end; one infinity if every trial diverged."""
        if self.report is None:
            return np.array([np.inf])
        last = self.report.held_out[0].astype(np.float64)
        return np.where(np.isfinite(last), last, np.inf)

    @property
    def loss(self) -> Estimate:
        """The mean test loss over seeds, with Student's t interval."""
        if not np.isfinite(self.losses).all():
            return Estimate(np.inf, np.nan, np.nan)
        return fit.mean(self.losses)

    @property
    def curve(self) -> np.ndarray:
        """The mean test loss over seeds at each of the race's marks."""
        if self.report is None:
            return np.array([np.inf])
        return self.report.curves[0].mean(axis=0, dtype=np.float64)

    def steps_to(self, target: float) -> int | None:
        """The first mark at which the mean test loss is `target` or lower; None if there is none."""
        if self.report is None:
            return None
        reached = np.flatnonzero(self.curve <= target)
        return int(self.report.marks[reached[0]]) if len(reached) else None


class RaceTable(NamedTuple):
    """Results by recipe."""

    task: str
    summary: str
    steps: int
    results: Mapping[str, Result]

    def ranked(self) -> list[tuple[str, Result]]:
        """Recipes and their results, the lowest test loss first."""
        return sorted(self.results.items(), key=lambda item: item[1].loss.value)

    def target(self, base: str = BASE) -> float:
        """The test loss of this recipe; nan where it takes no part."""
        return self.results[base].loss.value if base in self.results else np.nan

    def rows(self) -> list[dict[str, Any]]:
        """One dict for each recipe, the best first."""
        target = self.target()
        return [
            {
                "recipe": name,
                **(result.point or {}),
                "test_loss": result.loss.value,
                "low": result.loss.low,
                "high": result.loss.high,
                "steps_to_adamw": result.steps_to(target),
                "seconds_per_step": result.seconds_per_step,
                "seconds_to_compile": result.seconds_to_compile,
                "state_bytes": result.state_bytes,
            }
            for name, result in self.ranked()
        ]

    def cells(self) -> list[tuple[str, ...]]:
        """A head and one row for each recipe, as text."""
        head = "recipe", "chosen", "test loss", "95 %", "steps to adamw", "time"
        rows: list[tuple[str, ...]] = [(*head, "ms/step", "state bytes")]
        target, base = self.target(), self.results.get(BASE)
        for name, result in self.ranked():
            loss, steps = result.loss, result.steps_to(target)
            part = np.nan if steps is None else steps / self.steps
            pace = result.seconds_per_step / base.seconds_per_step if base else np.nan
            cells = [
                digits(loss.value, 4) if np.isfinite(loss.value) else "diverged",
                "" if np.isnan(loss.low) else f"± {digits(loss.high - loss.value, 2)}",
                "" if np.isnan(part) else digits(part, 2),
                "" if np.isnan(part * pace) else digits(part * pace, 2),
                digits(1e3 * result.seconds_per_step, 3),
                f"{result.state_bytes:,}",
            ]
            rows.append((name, chosen(result), *cells))
        return rows

    def table(self) -> str:
        """Every recipe at its best, the lowest test loss first, and what to be careful about."""
        return "\n".join([table.aligned(self.cells()), *self.warnings()])

    def warnings(self) -> list[str]:
        """What may be unfair: choices at the edge of a space, and recipes that diverged."""
        lines = [
            f"{name}: {' and '.join(result.pick.at_edge)} at the edge of the space; a better one "
            "may lie outside."
            for name, result in self.ranked()
            if result.pick is not None and result.pick.at_edge
        ]
        lost = [name for name, result in self.ranked() if result.pick is None]
        if lost:
            lines.append(f"Every trial diverged: {', '.join(lost)}.")
        return lines

    def plot(self, axes: Any) -> None:
        """Draw on two of matplotlib's axes: test loss over steps, and trials over learning rates."""
        fall, tuned = np.ravel(axes)
        styles = [(colour, line) for line in LINES for colour in COLOURS]
        others = iter(styles * (1 + len(self.results) // len(styles)))
        for name, result in self.ranked():
            colour, line = ("#000000", "--") if name == BASE else next(others)
            style = {"color": colour, "ls": line, "zorder": 3 if name == BASE else 2}
            if result.report is not None:
                label = f"{name} {digits(result.loss.value, 4)}"
                fall.plot(result.report.marks, result.curve, label=label, **style)
                low, high = (
                    f(result.report.curves[0], axis=0) for f in (np.min, np.max)
                )
                fall.fill_between(
                    result.report.marks, low, high, color=colour, alpha=0.15, lw=0
                )
            _draw_trials(tuned, result, style)
        self._frame(fall, tuned)

    def _frame(self, fall: Any, tuned: Any) -> None:
        """Limit both panels to where recipes differ, and label them."""
        curves = [r.curve for r in self.results.values() if r.report is not None]
        late = np.concatenate([curve[len(curve) // 8 :] for curve in curves] or [[]])
        finals = [r.trials.final.mean(axis=1) for r in self.results.values()]
        best = np.array([np.min(x[np.isfinite(x)], initial=np.inf) for x in finals])
        for axis, seen, least in (fall, late, 0.0), (tuned, best, 0.25):
            seen = seen[np.isfinite(seen)]
            if len(seen) and 0 < seen.min() < seen.max() / 100:
                axis.set_yscale("log")
                axis.set_ylim(seen.min() / 1.5, seen.max() * 1.5)
            elif len(seen):
                low, span = seen.min(), max(np.ptp(seen), least * abs(seen.min()))
                axis.set_ylim(low - 0.05 * span, low + (1.05 + 4 * least) * span)
        fall.set(
            xlabel="step", ylabel="test loss", title="At the chosen hyperparameters"
        )
        tuned.set(
            xlabel="learning rate",
            ylabel="validation loss",
            title="Trials (star: chosen)",
            xscale="log",
        )
        for axis in (fall, tuned):
            axis.grid(alpha=0.25, linewidth=0.6)
            axis.spines[["top", "right"]].set_visible(False)


def _draw_trials(axis: Any, result: Result, style: dict[str, Any]) -> None:
    trials = result.trials
    if "learning_rate" not in trials.points[0]:
        return
    rates = np.array([point["learning_rate"] for point in trials.points])
    final = np.where(np.isfinite(trials.final), trials.final, np.nan).mean(axis=1)
    order, line = np.argsort(rates), style["ls"] if len(trials.points[0]) == 1 else ""
    axis.plot(rates[order], final[order], **{**style, "ls": line}, marker=".", ms=4)
    if result.point is not None:
        best = trials.points.index(result.point)
        axis.plot(rates[best], final[best], "*", color=style["color"], ms=11, zorder=4)


def digits(x: float, count: int) -> str:
    """`x` with so many significant digits, such as 3e-7; whole numbers below a million as such."""
    if 10**count <= abs(x) < 1e6:
        return f"{x:.0f}"
    return re.sub(r"e(-?)\+?0*", r"e\1", f"{x:.{count}g}")


def chosen(result: Result) -> str:
    """The hyperparameters that were chosen, as in a call."""
    point = result.point or {}
    return ", ".join(f"{k}={sweep_table.cell(x)}" for k, x in point.items())
