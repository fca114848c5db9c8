"""What convex theory promises of a schedule, and the peak that suits it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradkit._core import check, rate
from gradkit._core.call import error
from gradkit._core.types import Schedule


class ScheduleBound(NamedTuple):
    """The bound of a schedule, and of the best multiple of it."""

    loss: float  # largest distance to the lowest loss, after the last update
    factor: float  # the number to multiply the schedule by
    best: float  # the bound of that multiple


def bound_of_schedule(
    schedule: Schedule, steps: int, norms: Any = 1.0, distance: float = 1.0
) -> ScheduleBound:
    r"""Bound the last loss of subgradient descent on a convex function under a schedule.

    With $S_k = \sum_{t \ge k} \eta_t$ and $Q_k = \sum_{t \ge k} \eta_t^2 \mathrm{norms}_t^2$, both
    up to the last update $T$:

    $$\mathrm{loss} = D + N, \quad D = \frac{\mathrm{distance}^2}{2 S_1}, \quad
      N = \frac{1}{2} \left(\frac{Q_1}{S_1} + \sum_{k < T} \frac{\eta_k Q_k}{S_k S_{k+1}}\right)$$

    $\gamma$ times the schedule has $D / \gamma + N \gamma$: the best factor is
    $\gamma = \sqrt{D / N}$, its bound $2 \sqrt{D N}$. Losses of language models follow it closely
    enough to compare schedules before they are run. For the cool-down that is best, compare `best`
    over its lengths. For another horizon or schedule, multiply the tuned rate by the ratio of the
    two `factor`s.

    Args:
        schedule: of the updates made so far, of gradkit or optax.
        steps: the number of updates of the run.
        norms: of the gradients: one number, or one for each update.
        distance: from the first parameters to the best ones.

    Paper: Schaipp, Hägele, Taylor, Simsekli and Bach, "The Surprising Agreement Between Convex
        Optimization Theory and Learning-Rate Scheduling for Large Model Training",
        arXiv:2501.18965; the bound is Theorem 10 of arXiv:2310.07831.
    Departure: updates at rate 0 are left out, as the parameters do not move there; in the formula they
        divide by 0. A schedule of zeros alone has an infinite bound.
    Limits: theory of SGD without momentum on convex functions; for what it predicts of AdamW, use
        ratios and shapes, not values. For a curve over a run, call it for every length.

    >>> flat, falls = optax.constant_schedule(1.0), gk.schedule_by_linear_decay(1.0, steps=100)
    >>> print([round(gk.bound_of_schedule(s, 100).best, 3) for s in (flat, falls)])
    [0.249, 0.204]
    """
    name = "bound_of_schedule"
    check.count(name, steps=steps)
    check.positive(name, distance=distance)
    counts = jnp.arange(steps, dtype=jnp.int32)
    if not callable(schedule):
        check.number_or_schedule(name, "schedule", schedule)
    schedule = rate.checked_schedule(name, "schedule", schedule)
    found = jax.vmap(schedule)(counts)
    _check_known(name, schedule=found, norms=norms, distance=distance)
    rates = np.asarray(found, np.float64)
    _check_each(name, "schedule", rates)
    given = np.asarray(norms, np.float64)
    want = f"norms must be one number, or {steps}"
    remedy = "Give one for each update."
    check.holds(name, given.shape in ((), (steps,)), want, given.shape, remedy)
    given = np.broadcast_to(given, (steps,))
    _check_each(name, "norms", given)
    first, others = _terms(rates, given, distance)
    factor = np.sqrt(first / others) if np.isfinite(first) and others > 0 else np.inf
    best = 2 * np.sqrt(first * others) if np.isfinite(first) else np.inf
    return ScheduleBound(float(first + others), float(factor), float(best))


def _check_known(name: str, **arguments: Any) -> None:
    """No number is traced."""
    for argument, values in arguments.items():
        if any(isinstance(x, Tracer) for x in jax.tree.leaves(values)):
            text = f"{argument} must be of known numbers, got traced ones"
            raise error(TypeError, name, f"{text}. Call it outside of jit.")


def _check_each(name: str, argument: str, values: np.ndarray) -> None:
    """Each value is finite and at least 0."""
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if bad.size:
        got = f"{values[bad[0]]} at update {bad[0]}"
        want = f"{argument} must be finite and at least 0"
        check.holds(name, False, want, got, "Bound a run that ends before.")


def _terms(
    rates: np.ndarray, norms: np.ndarray, distance: float
) -> tuple[float, float]:
    """The term of the distance, and the sum of those of the norms."""
    rates, norms = rates[rates > 0], norms[rates > 0]
    if not rates.size:
        return np.inf, 0.0
    s = np.cumsum(rates[::-1])[::-1]
    q = np.cumsum((rates * norms)[::-1] ** 2)[::-1]
    last = np.sum(rates[:-1] / s[1:] * q[:-1] / s[:-1])
    return distance**2 / (2 * s[0]), (q[0] / s[0] + last) / 2
