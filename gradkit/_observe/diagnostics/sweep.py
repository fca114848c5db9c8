"""Train at many hyperparameters from many seeds, and pick."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from gradkit._core import check
from gradkit._core.call import error
from gradkit._core.measure import host
from gradkit._core.measure import space as spaces
from gradkit._core.measure.record import Record
from gradkit._core.measure.space import Point, Space
from gradkit._core.measure.sweep_table import SweepTable, recent
from gradkit._core.measure.trials import Problem, Trials, trials
from gradkit._core.types import AnyTransform, Params

NAME = "sweep"
STRIDES = 20  # calls of `watch` for each group of points


class Progress(NamedTuple):
    """How far a sweep is."""

    finished: int  # points, of `points`
    points: int
    step: int  # of the points that are trained now, of `steps`
    steps: int
    loss: float  # the lowest of these points' last ones


def sweep(
    make_tx: Callable[..., AnyTransform],
    space: Space,
    loss: Callable[[Params, Any], jax.Array],
    data: Callable[[jax.Array], Any],
    steps: int,
    *,
    init: Callable[[jax.Array], Params],
    held_out: Callable[[Params], jax.Array] | None = None,
    seeds: int = 3,
    points: int | None = None,
    halving: int | None = None,
    memory: float | None = None,
    folder: str | os.PathLike[str] | None = None,
    watch: Callable[[Progress], None] | None = None,
) -> SweepTable:
    r"""Train a model at many hyperparameters from several seeds, in one program.

    $$h^* = \operatorname{argmin}_h \operatorname{mean}_s \ell(h, s), \qquad
      s = 0, \dots, \mathrm{seeds} - 1$$

    with $\ell(h, s)$ the loss at the end of the run of hyperparameters $h$ from seed $s$.
    Every seed has the same first parameters and batches at every point. All points of one program
    are trained at once, or as many as fit into memory, which is asked of the compiled program. A
    run that becomes nan is a row like others. Points where only floats differ share a program;
    whole numbers, names and flags are static, and each combination of them has its own.

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
            tenth of all steps.
        seeds: runs for each point.
        points: how many points to draw.
        halving: successive halving: the best fraction `1 / halving` of the points go on after
            `steps / halving^k` steps, for each k that leaves at least one step and point.
        memory: bytes of one device to use at most; half of it by default.
        folder: each point is saved here when it is finished. The same sweep with the same folder goes
            on; functions are not compared, other arguments are.
        watch: called with a `Progress` some 20 times for each group of points.

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
    check.count(NAME, steps=steps, seeds=seeds)
    for name, value in {"points": points, "halving": halving}.items():
        if value is not None:
            check.count(NAME, **{name: value})
    if halving == 1:
        text = "halving must be at least 2, got 1. Choose 3, say, or leave it out."
        raise error(ValueError, NAME, text)
    space = spaces.checked(NAME, space)
    every = spaces.points(NAME, space, points, 0)
    problem = Problem(make_tx, init, loss, data, held_out)
    _try(problem, every[0])
    empty = SweepTable(
        space,
        every,
        np.zeros(len(every), np.int32),
        np.full((len(every), seeds, steps), np.nan, np.float32),
        np.full((len(every), seeds), np.nan, np.float32),
    )
    record = Record(NAME, folder, empty)
    run = _Run(problem, empty, record, memory, watch)
    going = [*range(len(every))]
    for stop in _rungs(steps, halving, len(every)):
        run.train([i for i in going if i not in record.done], stop)
        if stop < steps:
            going = run.better(going, stop, halving or 1)
    return empty


def _try(problem: Problem, point: Point) -> None:
    """Refuse what cannot be trained, before anything is compiled."""
    try:
        problem.make_tx(**point)
    except TypeError as found:
        text = f"make_tx must take {', '.join(point)}, got an error of it: {found}"
        raise error(TypeError, NAME, f"{text}. Give it these arguments.") from found
    params, batch = (
        jax.eval_shape(f, jax.random.key(0)) for f in (problem.init, problem.data)
    )
    values = {"loss": jax.eval_shape(problem.loss, params, batch)}
    if problem.held_out is not None:
        values["held_out"] = jax.eval_shape(problem.held_out, params)
    for name, value in values.items():
        if getattr(value, "shape", None) != ():
            text = f"{name} must return one number, got {value}. Take its mean."
            raise error(TypeError, NAME, text)


def _rungs(steps: int, halving: int | None, points: int) -> list[int]:
    """Numbers of steps after which the best go on, the last for those that do to the end."""
    rungs = [steps]
    while halving and rungs[0] >= halving and points >= halving:
        rungs.insert(0, rungs[0] // halving)
        points //= halving
    return rungs


class _Run(NamedTuple):
    """A sweep under way; `table` is filled in place."""

    problem: Problem
    table: SweepTable
    record: Record
    memory: float | None
    watch: Callable[[Progress], None] | None

    def train(self, going: Sequence[int], stop: int) -> None:
        """Train these points from the start up to step `stop`."""
        traced = [
            k for k, values in self.table.space.items() if spaces.is_number(values)
        ]
        groups: dict[str, list[int]] = {}
        for i in going:
            static = {k: x for k, x in self.table.points[i].items() if k not in traced}
            groups.setdefault(repr(static), []).append(i)
        for group in groups.values():
            static = {
                k: x for k, x in self.table.points[group[0]].items() if k not in traced
            }
            problem = self.problem._replace(
                make_tx=functools.partial(self.problem.make_tx, **static)
            )
            compiled, size = self._compiled(problem, traced, len(group))
            for first in range(0, len(group), size):
                self._together(
                    compiled, group[first : first + size], traced, size, stop
                )

    def _compiled(
        self, problem: Problem, traced: Sequence[str], points: int
    ) -> tuple[Trials, int]:
        """A program for as many of these points as fit into memory."""
        _, seeds, steps = self.table.losses.shape
        budget = host.available() / 2 if self.memory is None else self.memory
        compiled = trials(problem, traced, seeds, steps, points)
        while compiled.bytes > budget:
            if points == 1:
                text = (
                    f"memory must be at least {compiled.bytes:.3g} bytes for one point with "
                    f"{seeds} seeds, got {budget:.3g}. Use fewer seeds or a smaller model."
                )
                raise error(ValueError, NAME, text)
            points = max(1, min(points - 1, int(points * budget / compiled.bytes)))
            compiled = trials(problem, traced, seeds, steps, points)
        return compiled, points

    def _together(
        self,
        compiled: Trials,
        going: Sequence[int],
        traced: Sequence[str],
        size: int,
        stop: int,
    ) -> None:
        """Train so many points at once; the last one fills up what is left of the program."""
        filled = [*going, *[going[-1]] * (size - len(going))]
        numbers = {
            k: np.array([self.table.points[i][k] for i in filled]) for k in traced
        }
        runs, stride = compiled.begin(numbers), -(-stop // STRIDES)
        for step in range(0, stop, stride):
            to = min(step + stride, stop)
            runs = compiled.advance(runs, numbers, step, to)
            if self.watch is not None:
                last = float(np.fmin.reduce(np.ravel(runs.losses[:, :, to - 1])))
                finished = len(self.record.done)
                self.watch(Progress(finished, len(self.table.points), to, stop, last))
        losses = np.asarray(runs.losses)
        ended = stop == losses.shape[2]
        held_out = compiled.held_out(runs)
        for row, i in enumerate(going):
            self.table.steps[i] = stop
            self.table.losses[i] = losses[row]
            if ended:
                self.table.held_out[i] = held_out[row]
                self.record.save(i, self.table)

    def better(self, going: Sequence[int], stop: int, halving: int) -> list[int]:
        """The best fraction after `stop` steps; the others are finished."""
        last = recent(self.table.losses[going, :, :stop]).mean(axis=1)
        order = np.argsort(np.where(np.isfinite(last), last, np.inf), kind="stable")
        kept = sorted(going[i] for i in order[: len(going) // halving])
        for i in set(going) - set(kept):
            self.record.save(i, self.table)
        return kept
