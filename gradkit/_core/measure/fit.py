"""Fits to a few measured points, with 95 % intervals: power laws, minimum of a curve."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit


class Estimate(NamedTuple):
    """A number and its 95 % confidence interval; nan bounds if there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Format as `+0.52 [+0.48, +0.57]`."""
        if np.isnan(self.low):
            return f"{self.value:+.2f}"
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"

    def above(self, limit: float) -> bool:
        """Whether the whole interval is above `limit`; without an interval, the value."""
        return bool(np.fmin(self.low, self.value) > limit)

    def below(self, limit: float) -> bool:
        """Whether the whole interval is below `limit`; without an interval, the value."""
        return bool(np.fmax(self.high, self.value) < limit)


def exponents(sizes: npt.ArrayLike, values: npt.ArrayLike) -> np.ndarray:
    """Slopes of log value against log size, by least squares along the first axis.

    nan where a value is not positive and finite.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log(np.asarray(values, np.float64))
    x = np.log(np.asarray(sizes, np.float64))
    x = x - x.mean()
    y = np.where(np.isfinite(y).all(axis=0), y, np.nan)
    return np.tensordot(x, y, 1) / (x @ x)


def mean(samples: np.ndarray) -> Estimate:
    """Mean of independent samples, with Student's t interval."""
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
    """The `x` at the minimum of the parabola through the lowest `y` and its two neighbours.

    Points that are not finite are left out. If the lowest point is at an edge, its own `x`.
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
