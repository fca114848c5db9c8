"""The transfer sweep: is the best learning rate of a narrow model best for a wide one?"""

from collections.abc import Sequence

import numpy as np

from gradkit._core import check
from gradkit._core.call import error
from gradkit._core.measure import experiment, sweep_table
from gradkit._core.measure.record import Record
from gradkit._core.measure.sweep_result import SweepResult
from gradkit._core.measure.sweep_table import recent
from gradkit._core.measure.training import Programs, Training
from gradkit._core.measure.trials import Problem

NAME = "sweep_transfer"


def sweep_transfer(
    make: experiment.Make,
    sizes: Sequence[int],
    rates: Sequence[float],
    steps: int = 100,
    seeds: int = 3,
) -> SweepResult:
    r"""Train every size at every learning rate, and see whether the best one stays.

    With $\ell_n(r)$ the loss of size $n$ at rate $r$, its mean over the last tenth of all
    steps and over seeds, and $n_0$ the first size:

    $$r_n = \operatorname{argmin}_r \ell_n(r), \qquad
      \text{shift} = \log_2 r_n - \log_2 r_{n_0}$$

    The minimum is that of the parabola in $\log_2 r$ through the lowest point of the grid
    and its two neighbours. Intervals are the middle 95 % over bootstrapped seeds. A run has
    diverged, and its loss is nan, if it ends further above the best one of its seed than the highest
    first loss of all is above the lowest last one.

    Args:
        make: from a size, the `Experiment` of a model that large: pure functions of init, loss,
            transform by learning rate, and batch. Every step draws a batch, the same
            for all sizes and rates.
        sizes: widths or depths; shifts are from the first.
        rates: learning rates, rising; factors of 2 or less between them.
        steps: updates of every run.
        seeds: of first parameters and batches; at least 2 for intervals.

    Paper: Yang and others, "Tensor Programs V", arXiv:2203.03466, Figure 1.
    Departure: the paper reads the optimum off the grid.
    Limits: all runs of a size are in memory at once, and a `lax.cond` on what differs between
        runs takes both branches. A short run's best rate may differ from a long one's. With few
        seeds the interval is rough; an optimum at the grid's edge has none to be trusted.

    >>> bowl = lambda n: gk.Experiment(lambda k: jnp.ones(n), lambda w, x: (w**2).sum(),
    ...     gk.sgd, lambda k: jnp.zeros(()))  # at rate 1/2 one step is enough
    >>> gk.sweep_transfer(bowl, [1, 4], [0.125, 0.25, 0.5, 1.0, 2.0], steps=2).shift
    0.0
    """
    check.count(NAME, steps=steps, seeds=seeds)
    want = "sizes must be one size or more, all different"
    distinct = len(sizes) == len({*sizes}) > 0
    check.holds(NAME, distinct, want, [*sizes], "Pass widths, such as [64, 128].")
    if list(rates) != sorted(set(rates)) or len(rates) < 3 or rates[0] <= 0:
        raise ValueError(
            "gradkit.sweep_transfer: rates must be three or more, above 0 and rising, got "
            f"{list(rates)}. Space them evenly in their logarithm, as 2.0**k."
        )
    return SweepResult(
        tuple(rates), {n: _train(_made(make, n), rates, steps, seeds) for n in sizes}
    )


def _made(make: experiment.Make, size: int) -> experiment.Experiment:
    """The experiment of one size."""
    made = make(size)
    if not isinstance(made, experiment.Experiment):
        text = f"make must return a gk.Experiment, got {type(made).__name__}"
        raise error(TypeError, NAME, f"{text}. Return gk.Experiment(init, loss, ...).")
    init, loss, tx, batch = made
    experiment.check_functions(
        NAME,
        init=(init, "key"),
        loss=(loss, "params, batch"),
        tx=(tx, "learning_rate"),
        batch=(batch, "key"),
    )
    experiment.check_trained(NAME, "init", init)
    return made


def _train(
    model: experiment.Experiment, rates: Sequence[float], steps: int, seeds: int
) -> np.ndarray:
    """Final losses, `[rates, seeds]`, nan where diverged: all in one compiled program."""
    problem = Problem(lambda rate: model.tx(rate), model.init, model.loss, model.batch)
    space, points = {"rate": rates}, [{"rate": rate} for rate in rates]
    table = sweep_table.empty(space, points, (*range(seeds),), steps, (steps,))
    problem.check(NAME, {})
    programs = Programs(NAME, problem, space, steps)
    programs.check("tx", points)
    training = Training(programs, table, Record(NAME, None, table))
    training.train(range(len(points)), steps)
    losses = np.asarray(table.losses, np.float64)
    return np.where(diverged(losses[..., 0], recent(losses)), np.nan, recent(losses))


def diverged(first: np.ndarray, final: np.ndarray) -> np.ndarray:
    """Whether runs end above where they begin, `[rates, seeds]`, from first and last losses.

    Runs of one seed have the same batches, so that they are compared with each other: a first loss
    is of one batch, and noisy.
    """
    known = np.where(np.isfinite(final), final, np.inf)
    progress = max(0.0, first.max() - known.min())
    return ~(np.isfinite(known) & (known <= known.min(axis=0) + progress))
