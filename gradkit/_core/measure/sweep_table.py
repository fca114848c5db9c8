"""The result of a sweep: one row a point, and which one to pick."""

from typing import Any, NamedTuple

import numpy as np

from gradkit._core import table
from gradkit._core.measure import fit, space
from gradkit._core.measure.fit import Estimate
from gradkit._core.measure.space import Point


class Pick(NamedTuple):
    """The point whose loss is the lowest, and signs that another may be better."""

    point: Point
    loss: Estimate  # mean over seeds, with a bootstrap interval
    wins: float  # the fraction of bootstrap draws of seeds in which it is the lowest
    at_edge: tuple[str, ...]  # hyperparameters of which a better value may lie outside


class SweepTable(NamedTuple):
    """Losses by point and seed."""

    space: space.Space
    points: list[Point]
    seeds: tuple[int, ...]
    steps: np.ndarray  # that each point was trained for, `[points]`
    losses: np.ndarray  # before each step, `[points, seeds, steps]`; nan where not run
    marks: tuple[int, ...]  # steps after which the held-out loss is asked, the last too
    curves: np.ndarray  # held-out losses, `[points, seeds, marks]`; nan without

    @property
    def held_out(self) -> np.ndarray:
        """The held-out loss at the end, `[points, seeds]`; nan without such a loss."""
        return self.curves[..., -1]

    @property
    def final(self) -> np.ndarray:
        """`[points, seeds]`: the held-out loss, else the mean of the last tenth of all steps."""
        if not np.isnan(self.held_out).all():
            return self.held_out
        return recent(self.losses)

    def pick(self, resamples: int = 1000) -> Pick:
        """The point with the lowest mean loss among those trained to the end without nan.

        Raises `ValueError` if there is none.
        """
        final = np.where(np.isfinite(self.final), self.final, np.inf)
        means = final.mean(axis=1)
        if not np.isfinite(means).any():
            raise ValueError(
                "gradkit.sweep: a point must stay finite from every seed, got none of "
                f"{len(means)}. Try smaller learning rates."
            )
        best, seeds = int(np.argmin(means)), final.shape[1]
        draws = np.random.default_rng(0).integers(seeds, size=(resamples, seeds))
        resampled = final[:, draws].mean(axis=2)  # [points, resamples]
        point = self.points[best]
        edges = [k for k, x in point.items() if space.near_edge(self.space[k], x)]
        return Pick(
            point,
            fit.percentiles(
                float(means[best]), resampled[best] if seeds > 1 else np.zeros(1)
            ),
            float(np.mean(np.argmin(resampled, axis=0) == best)),
            tuple(edges),
        )

    def rows(self) -> list[dict[str, Any]]:
        """One dict for each point and seed: hyperparameters, seed, steps, losses."""
        last = recent(self.losses)
        return [
            {
                **point,
                "seed": seed,
                "steps": int(self.steps[i]),
                "train_loss": float(last[i, j]),
                "held_out_loss": float(self.held_out[i, j]),
            }
            for i, point in enumerate(self.points)
            for j, seed in enumerate(self.seeds)
        ]

    def table(self, most: int = 20) -> str:
        """`most` points, those trained the longest first, the best of them first; and the pick."""
        final = self.final
        means = np.where(np.isfinite(final), final, np.inf).mean(axis=1)
        order = np.lexsort((means, -self.steps))[:most]
        names = [*self.points[0]]
        rows = [(*names, "loss", "over seeds", "")]
        for i in order:
            lost, steps = int(np.sum(~np.isfinite(final[i]))), self.steps[i]
            stopped = steps < self.losses.shape[2] and lost == final.shape[1]
            remark = f"{lost} of {final.shape[1]} runs diverged" * bool(lost)
            remark = f"stopped after {steps} steps" if stopped else remark
            cells = [cell(self.points[i][name]) for name in names]
            spread = "" if lost else f"± {np.ptp(final[i]) / 2:.3g}"
            loss = f"{means[i]:.4f}" if np.isfinite(means[i]) else ""
            rows.append((*cells, loss, spread, remark))
        lines = [table.aligned(rows)]
        if len(means) > most:
            lines.append(f"and {len(means) - most} more")
        return "\n".join([*lines, self._verdict(means)])

    def _verdict(self, means: np.ndarray) -> str:
        if not np.isfinite(means).any():
            return "Every point diverged."
        best = self.pick()
        point = ", ".join(f"{k}={cell(x)}" for k, x in best.point.items())
        text = f"Best: {point}, loss {best.loss.value:.4f}"
        if not np.isnan(best.loss.low):
            text += f" [{best.loss.low:.4f}, {best.loss.high:.4f}]"
            text += f", the lowest in {best.wins:.0%} of resamples of seeds"
        for name in best.at_edge:
            text += (
                f". {name} is at the edge of its space: a better one may lie outside"
            )
        return f"{text}."

    def plot(self, axes: Any) -> None:
        """Draw the loss of every point on matplotlib's `axes`, one for each hyperparameter."""
        final = np.where(np.isfinite(self.final), self.final, np.nan)
        best = self.pick()
        for axis, name in zip(np.ravel(axes), self.points[0]):
            values = [point[name] for point in self.points]
            listed = self.space[name]
            is_number = all(isinstance(x, float | int) for x in values)
            places = {} if is_number else {x: i for i, x in enumerate(listed)}
            at = values if is_number else [places[x] for x in values]
            axis.plot(at, np.nanmean(final, axis=1), ".", color="tab:blue", alpha=0.6)
            mark = best.point[name] if is_number else places[best.point[name]]
            axis.plot(mark, best.loss.value, "*", ms=14, color="tab:red")
            axis.set(xlabel=name, ylabel="loss")
            if not is_number:
                axis.set_xticks([*places.values()], [*map(str, places)])
            elif min(values) > 0 and max(values) > 10 * min(values):
                axis.set_xscale("log")


def marks(steps: int, every: int | None) -> tuple[int, ...]:
    """Steps after which a held-out loss is asked: each so many, and the last one."""
    return (*range(every or steps, steps, every or steps), steps)


def empty(
    space: space.Space,
    points: list[Point],
    seeds: tuple[int, ...],
    steps: int,
    marks: tuple[int, ...],
) -> SweepTable:
    """The table before anything is trained."""
    shape = len(points), len(seeds)
    return SweepTable(
        space,
        points,
        seeds,
        np.zeros(len(points), np.int32),
        np.full((*shape, steps), np.nan, np.float32),
        marks,
        np.full((*shape, len(marks)), np.nan, np.float32),
    )


def recent(losses: np.ndarray) -> np.ndarray:
    """The mean of the last tenth of all steps; nan where a run was stopped before."""
    return losses[..., -max(1, losses.shape[-1] // 10) :].mean(axis=-1)


def cell(value: Any) -> str:
    """A hyperparameter as text, floats with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
