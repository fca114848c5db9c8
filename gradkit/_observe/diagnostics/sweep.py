"""Train at many hyperparameters from many seeds, and pick."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax

from gradkit._core import check
from gradkit._core.call import error
from gradkit._core.measure import experiment, sweep_table
from gradkit._core.measure import space as spaces
from gradkit._core.measure.record import Record
from gradkit._core.measure.space import Space
from gradkit._core.measure.sweep_table import SweepTable
from gradkit._core.measure.training import Programs, Training, Watch
from gradkit._core.measure.trials import Problem
from gradkit._core.types import AnyTransform, Params

NAME = "sweep"


def sweep(
    make_tx: Callable[..., AnyTransform],
    space: Space,
    loss: Callable[[Params, Any], jax.Array],
    data: Callable[[jax.Array], Any],
    steps: int,
    *,
    init: Callable[[jax.Array], Params],
    held_out: Callable[[Params], jax.Array] | None = None,
    held_out_every: int | None = None,
    seeds: int | Sequence[int] = 3,
    points: int | None = None,
    halving: int | None = None,
    memory: float | None = None,
    folder: str | os.PathLike[str] | None = None,
    watch: Watch | None = None,
) -> SweepTable:
    r"""Train a model at many hyperparameters from several seeds, in one program.

    $$h^* = \operatorname{argmin}_h \operatorname{mean}_s \ell(h, s), \qquad
      s = 0, \dots, \mathrm{seeds} - 1$$

    with $\ell(h, s)$ the loss at the end of the run of hyperparameters $h$ from seed $s$.
    Every seed has the same first parameters and batches at every point. Points where only floats
    differ share a program; whole numbers, names and flags are static, and each combination of
    them has its own. On an accelerator all runs of a program are trained at once, or as many as
    fit into memory, which is asked of the compiled program; so are those of models below 1,024
    parameters. Larger models on a CPU are trained one run a core, which is faster there. A run
    that becomes nan is a row like others.

    Args:
        make_tx: from the hyperparameters of `space`, by name, a transform.
        space: name -> values to try, or a range, `gk.LogUniform(1e-4, 1e-1)` or `gk.Uniform(0, 1)`.
            Lists alone give every combination; with `points`, a scrambled Sobol sequence covers
            lists and ranges.
        loss: `(params, batch) -> a number`.
        data: `key -> batch`; draw examples from an array that it closes over.
        steps: updates of every run.
        init: `key -> first parameters`.
        held_out: `params -> a number`, the loss to pick by; else the mean training loss of the last
            tenth of all steps. Where the state keeps an average of the parameters, as after
            `average_params_by_ema` and in `step_by_schedule_free`, it is asked of the average.
        held_out_every: steps between measurements of `held_out`; else it is asked at the end alone.
        seeds: how many runs for each point, or which: whole numbers, of first parameters and batches.
        points: how many points to draw.
        halving: successive halving: the best fraction `1 / halving` of the points go on after
            `steps / halving^k` steps, for each k that leaves at least one step and point.
        memory: bytes of one device to use at most; half of it by default.
        folder: each run is saved here when it is finished, and once a minute and when the sweep is
            stopped where it is. The same sweep with the same folder goes on. Functions are not
            compared, but for names and places of those in `space`; other arguments, whether there
            is a `held_out`, versions, device and flags are.
        watch: called with a `SweepProgress` some 20 times for each group of runs. What it raises ends the
            sweep.

    Returns:
        A `SweepTable`: `pick()` is the best point with a bootstrap interval over seeds, `table()` a
        text, `rows()` one dict for each run, `plot(axes)` a picture.

    Errors: a space that is empty or has a value twice; a range without `points`; a `make_tx` that
        does not take the names; a loss that is not a number; a folder of another sweep.
    Paper: Li et al., "A System for Massively Parallel Hyperparameter Tuning", arXiv:1810.05934,
        Algorithm 1, for `halving`.
    Departure: none.
    Limits: under `vmap` a `lax.cond` on what differs between runs takes both branches. A best point
        at the edge of its space says that a better one may lie outside. The loss picked by is
        that of the pick: report it on data that no point was chosen by.

    >>> loss = lambda w, x: ((w - x) ** 2).sum()
    >>> found = gk.sweep(gk.sgd, {"learning_rate": [0.01, 0.1, 0.5]}, loss,
    ...     lambda key: jnp.ones(3), steps=10, init=lambda key: jnp.zeros(3))
    >>> found.pick().point
    {'learning_rate': 0.5}
    """
    check.count(NAME, steps=steps)
    optional = {
        "points": points,
        "halving": halving,
        "held_out_every": held_out_every,
    }
    for name, value in optional.items():
        if value is not None:
            check.count(NAME, **{name: value})
    if halving == 1:
        text = "halving must be at least 2, got 1. Choose 3, say, or leave it out."
        raise error(ValueError, NAME, text)
    judges = {} if held_out is None else {"held_out": held_out}
    experiment.check_functions(
        NAME,
        init=(init, "key"),
        data=(data, "key"),
        loss=(loss, "params, batch"),
        **{name: (f, "params") for name, f in judges.items()},
    )
    experiment.check_trained(NAME, "init", init)
    chosen = spaces.seeds(NAME, seeds)
    for seed in chosen:
        check.below(NAME, "2**31", 2**31, seeds=seed)
    space = spaces.checked(NAME, space)
    every = spaces.points(NAME, space, points, 0)
    problem = Problem(make_tx, init, loss, data)
    problem.check(NAME, judges)
    programs = Programs(NAME, problem, space, steps, memory)
    programs.check("make_tx", every)
    table = sweep_table.empty(
        space,
        every,
        chosen,
        steps,
        sweep_table.marks(steps, held_out_every),
    )
    about = {"held_out": "none" if held_out is None else "given"}
    with Record(NAME, folder, table, about).opened() as record:
        training = Training(programs, table, record, held_out, watch)
        going = [*range(len(every))]
        for stop in _rungs(steps, halving, len(every)):
            training.train(going, stop)
            if stop < steps:
                going = training.better(going, stop, halving or 1)
    return table


def _rungs(steps: int, halving: int | None, points: int) -> list[int]:
    """Numbers of steps after which the best go on, the last for those that do to the end."""
    rungs = [steps]
    while halving and rungs[0] >= halving and points >= halving:
        rungs.insert(0, rungs[0] // halving)
        points //= halving
    return rungs
