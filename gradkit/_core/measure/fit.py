"""What a few measured points say: power laws, the lowest point of a curve, and how sure."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit


class Estimate(NamedTuple):
    """A number, and the interval in which it lies 95 times of 100."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """As `+0.52 [+0.48, +0.57]`."""
        if np.isnan(self.low):
            return f"{self.value:+.2f}"
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"

    def above(self, limit: float) -> bool:
        """Whether all of the interval is; where there is none, the number."""
        return bool(np.fmin(self.low, self.value) > limit)

    def below(self, limit: float) -> bool:
        """Whether all of the interval is; where there is none, the number."""
        return bool(np.fmax(self.high, self.value) < limit)


def exponents(sizes: npt.ArrayLike, values: npt.ArrayLike) -> np.ndarray:
    """The slopes of log value over log size, by least squares along the first axis.

    nan where a value is not a number above 0: no power of the size is.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log(np.asarray(values, np.float64))
    x = np.log(np.asarray(sizes, np.float64))
    x = x - x.mean()
    y = np.where(np.isfinite(y).all(axis=0), y, np.nan)
    return np.tensordot(x, y, 1) / (x @ x)


def mean(samples: np.ndarray) -> Estimate:
    """The mean of independent samples, with Student's interval."""
    n, middle = len(samples), float(np.mean(samples))
    if n < 2:
        return Estimate(middle, np.nan, np.nan)
    margin = stdtrit(n - 1, 0.975) * np.std(samples, ddof=1) / np.sqrt(n)
    return Estimate(middle, float(middle - margin), float(middle + margin))


def percentiles(value: float, samples: np.ndarray) -> Estimate:
    """`value`, with the interval that holds 95 of 100 bootstrapped samples."""
    if len(samples) < 2:
        return Estimate(value, np.nan, np.nan)
    low, high = np.percentile(samples, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def lowest(x: np.ndarray, y: np.ndarray) -> float:
    """Where the parabola through the lowest of `y` and its two neighbours is lowest.

    Points that are not finite are left out. The lowest point itself where it is at an edge.
    """
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    if not len(x):
        return float("nan")
    best = int(np.argmin(y))
    if best in (0, len(x) - 1):
        return float(x[best])
    near = slice(best - 1, best + 2)
    a, b, _ = np.polyfit(x[near] - x[best], y[near], 2)
    return float(x[best] - b / (2 * a)) if a > 0 else float(x[best])
