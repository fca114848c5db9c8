"""Result of a learning-rate sweep at several sizes: the best rate of each, and its shift."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gradkit._core import table
from gradkit._core.measure import fit
from gradkit._core.measure.fit import Estimate


class Optimum(NamedTuple):
    """Best learning rate of one size, its loss, and signs that it is unreliable."""

    log2_rate: Estimate  # log2 of the best learning rate
    shift: Estimate  # log2_rate minus that of the first size
    loss: float  # lowest mean over seeds on the grid
    at_edge: bool  # best rate at an edge of the grid: the best may be outside
    diverged: int  # number of runs that diverged, whose loss is nan


class SweepResult(NamedTuple):
    """Losses by size, learning rate and seed."""

    rates: tuple[float, ...]
    losses: Mapping[int, np.ndarray]  # by size, `[rates, seeds]`; nan where diverged

    def optima(self, resamples: int = 1000) -> dict[int, Optimum]:
        """The optimum of each size, by size.

        Intervals come from `resamples` bootstrap draws of seeds, the same for all sizes.
        """
        x = np.log2(np.asarray(self.rates, np.float64))
        best_rates, resampled = {}, {}
        for size, losses in self.losses.items():
            seeds = losses.shape[1]
            shape = (resamples if seeds > 1 else 1, seeds)
            draws = np.random.default_rng(0).integers(seeds, size=shape)
            resampled[size] = np.array(
                [fit.lowest(x, mean(losses[:, d])) for d in draws]
            )
            best_rates[size] = fit.lowest(x, mean(losses))
        first = next(iter(best_rates))
        return {
            size: Optimum(
                fit.percentiles(best, resampled[size]),
                fit.percentiles(
                    best - best_rates[first], resampled[size] - resampled[first]
                ),
                float(np.min(mean(self.losses[size]))),
                best in (x.min(), x.max()),
                int(np.sum(~np.isfinite(self.losses[size]))),
            )
            for size, best in best_rates.items()
        }

    @property
    def shift(self) -> float:
        """Largest distance between the best rates of two sizes, in doublings of the rate."""
        return float(np.ptp([best.log2_rate.value for best in self.optima(1).values()]))

    def ok(self, tolerance: float = 0.5) -> bool:
        """Whether the shift is at most `tolerance`, and no best rate is at the edge of the grid."""
        edge = any(best.at_edge for best in self.optima(1).values())
        return not edge and self.shift <= tolerance

    def __str__(self) -> str:
        """The table."""
        return self.table()

    def table(self) -> str:
        """One line per size: the best rate, its shift, its loss, and remarks."""
        rows = [("size", "best rate", "log2", "shift, doublings", "loss", "")]
        for size, best in self.optima().items():
            runs = self.losses[size].size
            remarks = [f"{best.diverged} of {runs} runs diverged"] * bool(best.diverged)
            remarks += ["best at the edge of the grid"] * best.at_edge
            rate = f"{2**best.log2_rate.value:.3g}"
            shift, loss = str(best.shift), f"{best.loss:.4f}"
            rows.append(
                (str(size), rate, f"{best.log2_rate}", shift, loss, ", ".join(remarks))
            )
        return table.aligned(rows)

    def plot(self, axes: Any) -> None:
        """Draw one line per size, with its optimum marked, on matplotlib's `axes`."""
        for size, best in self.optima(1).items():
            losses = np.nan_to_num(mean(self.losses[size]), posinf=np.nan)
            (line,) = axes.plot(self.rates, losses, "o-", label=f"{size}")
            star = dict(marker="*", markersize=14, color=line.get_color())
            axes.plot(2**best.log2_rate.value, best.loss, **star)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="learning rate", ylabel="loss")


def mean(losses: np.ndarray) -> np.ndarray:
    """Mean over seeds, by rate; infinite where one run diverged."""
    return np.where(np.isfinite(losses), losses, np.inf).mean(axis=1)
