"""The schedule that a log of gradient norms asks for."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import median_filter

from gradkit._core import check
from gradkit._core.call import error
from gradkit._core.factory import factory
from gradkit._core.types import Scalar, Schedule

NAME = "schedule_by_refinement"
LOG = "gradient_norm"  # of `gradkit.measure`
Log = np.ndarray | jax.Array | Sequence[Any] | Mapping[str, Any]


@factory
def schedule_by_refinement(
    norms: Log = (1.0, 1.0),
    *,
    peak: Scalar = 1.0,
    power: float = 2.0,
    smoothing: float = 0.1,
) -> Schedule:
    r"""Turn the gradient norms of a finished run into the schedule of the next one.

    $$w_c = \mathrm{median}(\mathrm{norms})_c^{-\mathrm{power}}, \quad
      s_c = w_c \sum_{p > c} w_p, \quad
      \eta_c = \mathrm{peak} \cdot s_c / \max(s), \quad c = 0, 1, \dots$$

    Where norms are large the rate is small, and it falls to zero in the end. Constant norms, the
    default, give a linear decay.

    Args:
        norms: the gradient norm of every update of a run as long as the next one: an array, a
            list of what `gk.metrics` returned, or one such dict whose numbers are arrays, as from
            `lax.scan`. They must be known before tracing.
        peak: the largest value.
        power: 2 for Euclidean norms and SGD, 1 for L1 norms and Adam; at most 2.
        smoothing: width of the running median as a fraction of the run; 0 for none.

    Paper: Defazio, Cutkosky, Mehta and Mishchenko, "When, Why and How Much? Adaptive Learning
        Rate Scheduling by Refinement", arXiv:2310.07831, Algorithm 1.
    Departure: the authors' code divides by the last weight, which sets no scale: here the largest
        value is `peak`. It leaves the median to its caller; its README has the one used here.
    Limits: log the run under a schedule that falls to zero, such as linear decay. The log of `gk.metrics`
        has Euclidean norms, and a norm of zero before the first update: leave that one out. The
        last update has rate zero. Beyond the log it stays at zero.

    >>> rate = gk.schedule_by_refinement([2.0, 1.0, 1.0, 1.0], smoothing=0.0)
    >>> print([round(float(rate(c)), 3) for c in range(5)])
    [0.375, 1.0, 0.5, 0.0, 0.0]
    """
    check.nonnegative(NAME, peak=peak)
    check.interval(NAME, "(0, 2]", power=power)
    check.interval(NAME, "[0, 1]", smoothing=smoothing)
    table = _refined(_smoothed(_logged(norms), smoothing), power)

    def schedule(step: jax.Array) -> jax.Array:
        c = jnp.clip(jnp.asarray(step), 0, table.size - 1).astype(jnp.int32)
        return peak * jnp.asarray(table, jnp.result_type(float))[c]

    return schedule


def _logged(norms: Any) -> np.ndarray:
    """The norms as a vector in float64, whichever way they were logged."""
    if isinstance(norms, Mapping):
        norms = _norm(norms)
    elif isinstance(norms, list | tuple) and all(isinstance(x, Mapping) for x in norms):
        norms = [_norm(x) for x in norms]
    check.concrete(NAME, norms=norms)
    want = "norms must be one number for each of two updates or more"
    try:
        logged = np.asarray(norms, np.float64)
    except (TypeError, ValueError):
        got = f"{type(norms).__name__} of something else"
        remedy = "Pass a vector, or what gradkit.metrics returned."
        raise error(TypeError, NAME, f"{want}, got a {got}. {remedy}") from None
    check.holds(NAME, logged.ndim == 1, want, f"shape {logged.shape}", "Pass a vector.")
    check.holds(NAME, logged.size > 1, want, logged.size, "Log a whole run.")
    bad = np.flatnonzero(~(np.isfinite(logged) & (logged >= 0)))
    if bad.size:
        got = f"{logged[bad[0]]} at update {bad[0]}"
        text = f"norms must be finite and at least 0, got {got}. Leave it out."
        raise error(ValueError, NAME, text)
    return logged


def _norm(metrics: Mapping[str, Any]) -> Any:
    """The norm of the whole gradient in what `gradkit.metrics` returned."""
    found = [k for k in metrics if k == LOG or k.endswith(f"/{LOG}")]
    found = [LOG] if LOG in found else found
    want = f"norms must have one {LOG} an update"
    remedy = "Log gradkit.metrics of a gradkit.measure, or pass the norms themselves."
    check.holds(NAME, len(found) == 1, want, f"{found or 'none'}", remedy)
    return metrics[found[0]]


def _smoothed(norms: np.ndarray, fraction: float) -> np.ndarray:
    """The running median; beyond its end the log is read backwards, before it the first stays."""
    width = 2 * (int(fraction * norms.size) // 2) + 1
    padded = np.pad(norms, (0, 2 * width), mode="reflect")
    smooth = median_filter(padded, size=width, mode="nearest")[: norms.size]
    want = "norms must be above 0, up to 1e100 times their least, once smoothed"
    remedy = "Raise smoothing, or leave out updates that were skipped."
    inside = smooth.min() > 1e-100 * smooth.max()
    check.holds(NAME, inside, want, f"{smooth.min()} to {smooth.max()}", remedy)
    return smooth


def _refined(norms: np.ndarray, power: float) -> np.ndarray:
    """The schedule, of which the largest value is 1."""
    w = (norms / norms.min()) ** -power
    later = np.cumsum(w[::-1])[::-1][1:]
    s = np.append(w[:-1] * later, 0.0)
    return s / s.max()
