"""The loss along the straight line between two solutions, and the barrier there."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, numbers
from gradkit._core.measure import figure, lanczos, stacked
from gradkit._core.measure.loss import compiled, one_number, parameters
from gradkit._core.types import Params

NAME = "measure_by_interpolation"


class Interpolation(NamedTuple):
    """Losses along a line."""

    places: jax.Array  # [points], from 0 at the start to 1 at the end
    losses: jax.Array  # [points]
    barrier: jax.Array  # [], the largest loss above the line between both ends
    at: jax.Array  # [], the place of the barrier
    rise: jax.Array  # [], the largest rise above the lowest loss before

    def plot(self, axes: Any = None) -> Any:
        """`plot_interpolation` of this result."""
        return plot_interpolation(self, axes)


def measure_by_interpolation(
    loss: lanczos.Loss, start: Params, end: Params, points: int = 25
) -> Interpolation:
    r"""Measure the loss on the straight line between two points, and how high its barrier is.

    With $L(a) = \mathrm{loss}((1 - a) \, \mathrm{start} + a \, \mathrm{end})$, at $a$ evenly from 0 to 1:

    $$\mathrm{barrier} = \max_a \left[ L(a) - (1 - a) L(0) - a L(1) \right], \qquad
      \mathrm{rise} = \max_{a < b} \left[ L(b) - L(a) \right]_+$$

    Two solutions without a barrier are linearly connected. From the first parameters to the last of a
    run, the loss of many networks only falls: their `rise` is 0. It may fall late on the line.

    Args:
        loss: of the parameters alone; a number. Fix a batch before: `lambda p: loss(p, batch)`.
            A function is compiled once, a new one anew: define it outside of loops, and change nothing
            in place that it names.
        start: parameters, as those before training, or of one run.
        end: other parameters of the same shapes, as those after it, or of another run.
        points: on the line, at least 3; both ends are among them.

    Paper: Goodfellow, Vinyals and Saxe, "Qualitatively characterizing neural network optimization
        problems", arXiv:1412.6544; the barrier is that of Frankle, Dziugaite, Roy and Carbin,
        arXiv:1912.05671.
    Departure: the barrier is measured from the line between both losses, where the latter paper takes
        their mean, which at ends of different losses is not 0 on a straight line.
    Limits: a barrier between two runs may be one of the order of neurons alone: match these first.
        Statistics of batch normalization are those of neither end in between: compute them anew.
        What is narrower than `1 / (points - 1)` of the line is not seen. A loss that is not
        finite between gives a barrier that is not; of one that is nan, `at` is too.

    >>> hill = lambda p: (p**2 - 1) ** 2  # solutions at -1 and 1, and 1 at 0
    >>> found = gk.measure_by_interpolation(hill, jnp.float32(-1.0), jnp.float32(1.0), points=5)
    >>> print(found.losses, found.barrier, found.at)
    [0.     0.5625 1.     0.5625 0.    ] 1.0 0.5
    """
    parameters(NAME, start, "start")
    end = stacked.like(NAME, "end", end, start, "start")
    check.count(NAME, points=points)
    check.at_least(NAME, 3, points=points)
    start = numbers.wide(start)
    one_number(NAME, loss, start)
    return compiled(_run, loss, points=points)(start, end)


def _run(
    loss: lanczos.Loss, start: Params, end: Params, *, points: int
) -> Interpolation:
    def at(a: jax.Array) -> jax.Array:
        move = lambda x, y: ((1 - a) * x + a * y).astype(x.dtype)
        value = loss(jax.tree.map(move, start, end))
        return value.astype(numbers.wide_dtype(value))

    a = jnp.linspace(0, 1, points)
    losses = jax.lax.map(at, a)
    above = losses - (1 - a) * losses[0] - a * losses[-1]
    rise = losses - jax.lax.cummin(losses)
    barrier = jnp.max(above)
    place = jnp.where(jnp.isnan(barrier), jnp.nan, a[jnp.argmax(above)])
    return Interpolation(a, losses, barrier, place, jnp.max(rise))


def plot_interpolation(result: Interpolation, axes: Any = None) -> Any:
    """Draw the losses along the line, and the barrier above the line between its ends.

    Args:
        result: of `measure_by_interpolation`, with numbers that are known.
        axes: of matplotlib; those of a new figure if None.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_interpolation", axes)
    places, losses = np.asarray(result.places), np.asarray(result.losses)
    axes.plot(places, losses, ".-", color="C0", label="loss")
    ends = losses[[0, -1]]
    axes.plot([0, 1], ends, "--", color="0.6", label="between the ends")
    at, barrier = float(result.at), float(result.barrier)
    if np.isfinite(barrier) and barrier > 0:
        foot = (1 - at) * ends[0] + at * ends[1]
        label = f"barrier {barrier:.3g}"
        axes.plot([at, at], [foot, foot + barrier], color="C1", label=label)
    title = "" if np.isfinite(barrier) else "not finite"
    axes.set(xlabel="start (0) to end (1)", ylabel="loss", title=title)
    axes.legend(frameon=False)
    return axes
