"""Hyperparameters to try: a grid of values, or quasi-random points in ranges."""

import itertools
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import qmc

from gradkit._core import check
from gradkit._core.call import error

Point = dict[str, Any]


class Uniform(NamedTuple):
    """Numbers from `low` to `high`, all as likely."""

    low: float
    high: float

    def at(self, fraction: float) -> float:
        """The number below which this fraction of all is."""
        return float(self.low + fraction * (self.high - self.low))

    def where(self, number: float) -> float:
        """The fraction of numbers below this one."""
        return (number - self.low) / (self.high - self.low)


class LogUniform(NamedTuple):
    """Positive numbers from `low` to `high`, whose logarithms are all as likely."""

    low: float
    high: float

    def at(self, fraction: float) -> float:
        """The number below which this fraction of all is."""
        return float(self.low * (self.high / self.low) ** fraction)

    def where(self, number: float) -> float:
        """The fraction of numbers below this one."""
        return math.log(number / self.low) / math.log(self.high / self.low)


Range = Uniform | LogUniform
Space = Mapping[str, Range | Sequence[Any]]


def checked(method: str, space: Space) -> dict[str, Range | tuple[Any, ...]]:
    """`space`, its values as tuples; an error names what is wrong with which entry."""
    if not isinstance(space, Mapping) or not space:
        text = (
            "space must name one hyperparameter or more, got "
            f"{space!r}. Pass {{'learning_rate': [1e-3, 1e-2]}}, say."
        )
        raise error(ValueError, method, text)
    return {name: _values(method, name, values) for name, values in space.items()}


def _values(method: str, name: str, values: Any) -> Range | tuple[Any, ...]:
    if isinstance(values, Range):
        low, high = values
        least = 0 if isinstance(values, LogUniform) else -math.inf
        if not least < low < high < math.inf:
            kind = type(values).__name__
            above = "0 < low" if least == 0 else "low"
            text = f"space[{name!r}] must have {above} < high, both finite, got {values!r}."
            raise error(
                ValueError, method, f"{text} Write {kind}(low=1e-4, high=1e-1), say."
            )
        return values
    if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray | range):
        text = (
            f"space[{name!r}] must be a list of values, gk.Uniform or gk.LogUniform, got "
            f"{values!r}. Write [{values!r}] for one value."
        )
        raise error(TypeError, method, text)
    listed = tuple(x.item() if isinstance(x, np.generic) else x for x in values)
    if not listed or len(set(map(repr, listed))) < len(listed):
        text = f"space[{name!r}] must have one value or more, all different, got {listed!r}."
        raise error(ValueError, method, f"{text} Leave out what is there twice.")
    return listed


def points(method: str, space: Space, count: int | None, seed: int) -> list[Point]:
    """Every combination of the values, or `count` points of a scrambled Sobol sequence.

    None is there twice. Of lists alone they are every combination where that is no more.
    """
    space = checked(method, space)
    ranges = [name for name, values in space.items() if isinstance(values, Range)]
    if count is None and ranges:
        text = (
            f"points must say how many to draw, as space[{ranges[0]!r}] is a range, got "
            "None. Pass points=32, say."
        )
        raise error(ValueError, method, text)
    combinations = math.inf if ranges else math.prod(map(len, space.values()))
    if count is None or count >= combinations:
        lists: Any = space.values()
        return [dict(zip(space, values)) for values in itertools.product(*lists)]
    sobol = qmc.Sobol(len(space), rng=np.random.default_rng(seed))
    found: dict[str, Point] = {}
    while not found or (len(found) < count and not ranges):  # of lists, some twice
        double = math.ceil(math.log2(max(count, sobol.num_generated)))
        for draw in sobol.random_base2(double):
            point = {k: at(x, float(u)) for (k, x), u in zip(space.items(), draw)}
            found.setdefault(repr(point), point)
    return [*found.values()][:count]


def seeds(method: str, given: int | Sequence[int]) -> tuple[int, ...]:
    """The seeds 0, 1 ... of a number of them, or those that are listed."""
    if isinstance(given, int):
        check.count(method, seeds=given)
        return (*range(given),)
    listed = (*given,)
    if not listed or len({*listed}) < len(listed):
        text = f"seeds must be a number, or different whole numbers, got {listed}."
        raise error(ValueError, method, f"{text} Pass 3, say, or range(10, 13).")
    for seed in listed:
        check.whole(method, "seeds", seed)
        check.nonnegative(method, seeds=seed)
    return tuple(map(int, listed))


def at(values: Range | Sequence[Any], fraction: float) -> Any:
    """The value below which this fraction of a range or a list is."""
    if isinstance(values, Range):
        return values.at(fraction)
    return values[min(int(fraction * len(values)), len(values) - 1)]


def is_number(values: Range | Sequence[Any]) -> bool:
    """Whether a hyperparameter is traced: floats are; whole numbers and names are static."""
    if isinstance(values, Range):
        return True
    reals = all(isinstance(x, Real) and not isinstance(x, bool) for x in values)
    return reals and any(isinstance(x, float) for x in values)


def near_edge(values: Range | Sequence[Any], chosen: Any) -> bool:
    """Whether better values may lie outside: at an end of a list, or close to one of a range."""
    if isinstance(values, Range):
        return not 0.05 < values.where(chosen) < 0.95
    if len(values) < 3 or not all(isinstance(x, Real) for x in values):
        return False
    return chosen in (min(values), max(values))
