"""How much is lost where the learning rate is not the best."""

from typing import Any, NamedTuple

import numpy as np

from gradkit._core import check
from gradkit._core.call import error
from gradkit._core.measure import figure
from gradkit._core.measure.sweep_table import SweepTable

NAME = "measure_by_learning_rate_sensitivity"


class LearningRateSensitivity(NamedTuple):
    """What a sweep of learning rates says of an optimizer or a model."""

    sensitivity: np.ndarray  # [], nan where no run ended below its initial loss
    best_rate: np.ndarray  # []
    best_loss: np.ndarray  # []
    is_at_edge: np.ndarray  # bool [], whether the best rate is the first or the last
    rates: np.ndarray  # [rates], rising
    losses: np.ndarray  # [rates], means over seeds, each at most the initial loss
    diverged: np.ndarray  # [rates], the fraction of seeds that diverged

    def plot(self, axes: Any = None) -> Any:
        """`plot_learning_rate_sensitivity` of this result."""
        return plot_learning_rate_sensitivity(self, axes)


def measure_by_learning_rate_sensitivity(
    rates: Any, losses: Any = None, initial: Any = None, name: str = "learning_rate"
) -> LearningRateSensitivity:
    r"""Measure how far the loss of the best learning rate is lost at others, on average.

    $$\mathrm{sensitivity} = \mathrm{mean}_\eta \left[
        \min(\ell(\eta), \ell_0) - \ell^\ast \right], \qquad
      \ell^\ast = \min_\eta \min(\ell(\eta), \ell_0)$$

    with $\ell(\eta)$ the loss of a run at the learning rate $\eta$, and $\ell_0$ that before training. A
    run that diverges counts as one that has learned nothing. Between optimizers, models or
    interventions it compares how well the rate must be tuned, which losses at the best rate hide.

    Args:
        rates: a `SweepTable` of `gradkit.sweep`; or learning rates, two or more, evenly
            spaced in their logarithm over the range of interest.
        losses: at the end of each run, `[rates]`, or `[rates, seeds]`; None with a table.
        initial: the loss before training, a number or `[seeds]`; None with a table, which has it.
        name: of the learning rate among the table's hyperparameters, the only one that varies.

    Paper: Wortsman and others, "Small-scale proxies for large-scale Transformer training
        instabilities", arXiv:2309.14322, Section 2.2.
    Departure: several seeds are averaged at each rate. A loss that is nan counts as the initial
        loss, as an infinite one does in the paper's formula.
    Limits: depends on the range of rates, and on their spacing: compare over the same ones; the
        paper takes 3e-4 to 3e-1. Where the best rate is at an edge, `is_at_edge`, the lowest
        loss may lie outside. A table's held-out losses are compared with the
        initial training loss. Points that a sweep stopped early count by what they reached, which
        is nan.

    >>> found = gk.measure_by_learning_rate_sensitivity([0.01, 0.1, 1.0], [2.0, 1.0, jnp.nan], 4.0)
    >>> print(found.sensitivity.round(3), found.best_rate, found.diverged)  # (1 + 0 + 3) / 3
    1.333 0.1 [0. 0. 1.]
    """
    if isinstance(rates, SweepTable):
        rates, losses, initial = _of_table(rates, losses, initial, name)
    if losses is None or initial is None:
        missing = "losses" if losses is None else "initial"
        text = f"{missing} must be given with rates, got None. Or pass a SweepTable."
        raise error(ValueError, NAME, text)
    rates = np.asarray(rates, np.float64)
    losses = np.asarray(losses, np.float64)
    initial = np.asarray(initial, np.float64)
    _check(rates, losses, initial)
    order = np.argsort(rates)
    rates, losses = rates[order], losses[order].reshape(len(rates), -1)
    lost = ~(losses <= initial)  # nan too
    means = np.where(lost, initial, losses).mean(1)
    best = int(np.argmin(means))
    sensitivity = np.mean(means - means[best]) if not lost.all() else np.nan
    return LearningRateSensitivity(
        np.asarray(sensitivity),
        np.asarray(rates[best]),
        np.asarray(means[best]),
        np.asarray(best in (0, len(rates) - 1)),
        rates,
        means,
        lost.mean(1),
    )


def _of_table(table: SweepTable, losses: Any, initial: Any, name: str) -> Any:
    """Rates, final losses, and those before the first step."""
    want, remedy = "losses and initial must be None with a table", "Leave them out."
    check.holds(NAME, losses is None and initial is None, want, "others", remedy)
    names = sorted({k for point in table.points for k in point})
    want = f"name must be one of {names}"
    check.holds(NAME, name in names, want, repr(name), "Say what the rate is called.")
    others = [{k: v for k, v in p.items() if k != name} for p in table.points]
    want = f"points must differ in {name} alone"
    alike = all(other == others[0] for other in others)
    got = f"others in {[k for k in names if k != name]}"
    check.holds(NAME, alike, want, got, "Sweep the learning rate alone.")
    rates = [point[name] for point in table.points]
    return rates, table.final, table.losses[0, :, 0]


def _check(rates: np.ndarray, losses: np.ndarray, initial: np.ndarray) -> None:
    """There are rates, a loss for each, and an initial loss for each of its seeds."""
    want, remedy = "rates must be two numbers or more", "Train at more rates."
    many = rates.ndim == 1 and rates.size >= 2
    check.holds(NAME, many, want, f"shape {rates.shape}", remedy)
    want, remedy = "rates must be different, finite and above 0", "Drop the others."
    good = bool(np.all(np.isfinite(rates) & (rates > 0)))
    check.holds(NAME, good and len({*rates}) == len(rates), want, rates, remedy)
    want = f"losses must have shape ({len(rates)},), or that and an axis of seeds"
    fits = losses.ndim in (1, 2) and losses.shape[0] == len(rates) and losses.size > 0
    check.holds(NAME, fits, want, losses.shape, "Give one for each rate.")
    want = "initial must be a number, or one for each seed"
    seeds = losses.shape[1:]
    fits = initial.shape in ((), seeds)
    check.holds(NAME, fits, want, f"shape {initial.shape}", "Average it.")
    want, remedy = "initial must be finite", "Look at the first parameters and batch."
    check.holds(NAME, bool(np.isfinite(initial).all()), want, initial, remedy)


def plot_learning_rate_sensitivity(
    result: LearningRateSensitivity, axes: Any = None
) -> Any:
    """Draw the loss by learning rate, and the area above the best loss.

    Args:
        result: of `measure_by_learning_rate_sensitivity`.
        axes: of matplotlib; those of a new figure if None.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_learning_rate_sensitivity", axes)
    rates, losses = result.rates, result.losses
    best = float(result.best_loss)
    axes.plot(rates, losses, "o-", color="C0", label="loss, at most the initial one")
    axes.fill_between(rates, best, losses, color="C0", alpha=0.15)
    lost = result.diverged > 0
    if lost.any():
        style = {"color": "C3", "markersize": 12, "label": "some diverged"}
        axes.plot(rates[lost], losses[lost], "x", **style)
    axes.plot(result.best_rate, best, "*", color="C1", markersize=12, label="best")
    figure.log_axis(axes, rates[0] / 1.3, rates[-1] * 1.3)
    title = f"sensitivity {float(result.sensitivity):.3g}"
    title += ", best at the edge" if result.is_at_edge else ""
    axes.set(xlabel="learning rate", ylabel="loss", title=title)
    axes.legend(frameon=False)
    return axes
