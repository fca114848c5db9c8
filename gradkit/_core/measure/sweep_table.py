"""The result of a sweep: one row a point, and which one to pick."""

import re
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
        """One dict for each point and seed: hyperparameters, seed, steps, losses.

        The training loss is the mean of the last tenth of the steps that were trained.
        """
        last = self._last()
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
        stopped = (self.steps < self.losses.shape[2])[:, None]
        known = np.where(stopped, self._last(), self.final)
        final = np.where(stopped, np.nan, known)
        means = np.where(np.isfinite(final), final, np.inf).mean(axis=1)
        order = np.lexsort((means, -self.steps))[:most]
        names = [*self.points[0]]
        rows = [(*names, "loss", "over seeds", "")]
        for i in order:
            lost = int(np.sum(~np.isfinite(known[i])))
            remarks = [f"{lost} of {known.shape[1]} runs diverged"] * bool(lost)
            remarks += [f"stopped after {self.steps[i]} steps"] * bool(stopped[i])
            remark = ", ".join(remarks)
            cells = [self._cell(name, self.points[i][name]) for name in names]
            is_spread = np.isfinite(means[i]) and final.shape[1] > 1
            spread = f"± {np.ptp(final[i]) / 2:.3g}" if is_spread else ""
            loss = f"{means[i]:.5g}" if np.isfinite(means[i]) else ""
            rows.append((*cells, loss, spread, remark))
        lines = [table.aligned(rows)]
        if len(means) > most:
            lines.append(f"and {len(means) - most} more")
        return "\n".join([*lines, self._verdict(means)])

    def _verdict(self, means: np.ndarray) -> str:
        if not np.isfinite(means).any():
            return "Every point diverged."
        best = self.pick()
        point = ", ".join(f"{k}={self._cell(k, x)}" for k, x in best.point.items())
        text = f"Best: {point}, loss {best.loss.value:.5g}"
        if not np.isnan(best.loss.low):
            text += f" [{best.loss.low:.5g}, {best.loss.high:.5g}]"
            text += f", the lowest in {best.wins:.0%} of resamples of seeds"
        for name in best.at_edge:
            text += (
                f". {name} is at the edge of its space: a better one may lie outside"
            )
        return f"{text}."

    def _last(self) -> np.ndarray:
        """The mean training loss of the last tenth of the steps of each point, `[points, seeds]`."""
        pairs = zip(self.losses, self.steps)
        return np.stack([recent(x[:, : max(1, steps)]) for x, steps in pairs])

    def _cell(self, name: str, value: Any) -> str:
        """A hyperparameter as text, with its place in the space where another has the same text."""
        listed = self.space[name]
        if isinstance(listed, space.Range) or isinstance(value, float | int | str):
            return cell(value)
        alike = [cell(x) for x in listed].count(cell(value)) > 1
        return f"{cell(value)} ({_place(listed, value) + 1})" if alike else cell(value)

    def plot(self, axes: Any) -> None:
        """Draw the loss of every point on matplotlib's `axes`, one for each hyperparameter."""
        final = np.where(np.isfinite(self.final), self.final, np.nan)
        best = self.pick()
        for axis, name in zip(np.ravel(axes), self.points[0]):
            values = [point[name] for point in self.points]
            listed = self.space[name]
            is_number = all(isinstance(x, float | int) for x in values)
            at = [x if is_number else _place(listed, x) for x in values]
            axis.plot(at, np.nanmean(final, axis=1), ".", color="tab:blue", alpha=0.6)
            mark = at[self.points.index(best.point)]
            axis.plot(mark, best.loss.value, "*", ms=14, color="tab:red")
            axis.set(xlabel=name, ylabel="loss")
            if not is_number:
                labels = [self._cell(name, x) for x in listed]
                axis.set_xticks(range(len(labels)), labels)
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
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else stable_repr(value)


def stable_repr(value: Any) -> str:
    """`repr(value)` without the addresses of functions, so that it is the same in every process."""
    return re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))


def _place(listed: Any, value: Any) -> int:
    """Which of the values of a list this one is."""
    same = [x is value for x in listed]
    return (
        same.index(True)
        if any(same)
        else [*map(stable_repr, listed)].index(stable_repr(value))
    )
