"""Which learning rate is the best one of each size, and how far it moves."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gradkit._core import table
from gradkit._core.measure import fit
from gradkit._core.measure.fit import Estimate


class Optimum(NamedTuple):
    """Where the loss of one size is lowest, and what speaks against trusting it."""

    log2_rate: Estimate  # of the best learning rate
    shift: Estimate  # from the best rate of the first size, in doublings
    loss: float  # the lowest mean over seeds on the grid
    at_edge: bool  # of the grid: the best may lie outside
    diverged: int  # runs whose loss is no number, or above where it began


class SweepResult(NamedTuple):
    """Losses of every size at every learning rate from every seed."""

    rates: tuple[float, ...]
    losses: Mapping[int, np.ndarray]  # by size, `[rates, seeds]`; nan where diverged

    def optima(self, resamples: int = 1000) -> dict[int, Optimum]:
        """By size; intervals are of `resamples` draws of the seeds, the same for all sizes."""
        x = np.log2(np.asarray(self.rates, np.float64))
        found, drawn = {}, {}
        for size, losses in self.losses.items():
            seeds = losses.shape[1]
            shape = (resamples if seeds > 1 else 1, seeds)
            draws = np.random.default_rng(0).integers(seeds, size=shape)
            drawn[size] = np.array([fit.lowest(x, mean(losses[:, d])) for d in draws])
            found[size] = fit.lowest(x, mean(losses))
        first = next(iter(found))
        return {
            size: Optimum(
                fit.percentiles(best, drawn[size]),
                fit.percentiles(best - found[first], drawn[size] - drawn[first]),
                float(np.min(mean(self.losses[size]))),
                best in (x.min(), x.max()),
                int(np.sum(~np.isfinite(self.losses[size]))),
            )
            for size, best in found.items()
        }

    @property
    def shift(self) -> float:
        """The furthest that the best rate moves between two sizes, in doublings of the rate."""
        return float(np.ptp([best.log2_rate.value for best in self.optima(1).values()]))

    def ok(self, tolerance: float = 0.5) -> bool:
        """Whether it moves by at most `tolerance` doublings, and none is at the grid's edge."""
        edge = any(best.at_edge for best in self.optima(1).values())
        return not edge and self.shift <= tolerance

    def table(self) -> str:
        """A line a size: the best rate, how far it moved, and what is to be said of it."""
        rows = [("size", "best rate", "log2", "shift, doublings", "loss", "")]
        for size, best in self.optima().items():
            runs = self.losses[size].size
            said = [f"{best.diverged} of {runs} runs diverged"] * bool(best.diverged)
            said += ["best at the edge of the grid"] * best.at_edge
            rate = f"{2**best.log2_rate.value:.3g}"
            shift, loss = str(best.shift), f"{best.loss:.4f}"
            rows.append(
                (str(size), rate, f"{best.log2_rate}", shift, loss, ", ".join(said))
            )
        return table.aligned(rows)

    def plot(self, axes: Any) -> None:
        """Draw a line a size, its optimum marked, on matplotlib's `axes`."""
        for size, best in self.optima(1).items():
            losses = np.nan_to_num(mean(self.losses[size]), posinf=np.nan)
            (line,) = axes.plot(self.rates, losses, "o-", label=f"{size}")
            star = dict(marker="*", markersize=14, color=line.get_color())
            axes.plot(2**best.log2_rate.value, best.loss, **star)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="learning rate", ylabel="loss")


def mean(losses: np.ndarray) -> np.ndarray:
    """By rate, over seeds; infinite where one diverged."""
    return np.where(np.isfinite(losses), losses, np.inf).mean(axis=1)
