"""Train one task with several recipes, each tuned alike, and compare them."""

import functools
import inspect
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, schedules
from gradkit._core.call import error
from gradkit._core.measure import space as spaces
from gradkit._core.measure import sweep_table
from gradkit._core.measure.entry import RaceEntry, RaceProgress
from gradkit._core.measure.race_table import RaceTable, Result
from gradkit._core.measure.record import Record
from gradkit._core.measure.space import LogUniform, Point, Space
from gradkit._core.measure.sweep_table import SweepTable
from gradkit._core.measure.task import Task
from gradkit._core.measure.training import Programs, Training
from gradkit._core.measure.trials import Problem, told
from gradkit._core.types import Schedule

NAME = "race"
TUNING_SEEDS = 1_000_000  # where seeds of trials begin: no report is from one of them
MARKS = 50  # measurements of the test loss in a run
Shape = Callable[[Any, int], Schedule]  # from a peak rate and steps, a schedule


def race(
    recipes: Mapping[str, RaceEntry | Callable[..., Any]],
    task: Task,
    steps: int,
    *,
    trials: int = 8,
    tuning_seeds: int = 1,
    seeds: int = 3,
    schedule: Shape | None = None,
    memory: float | None = None,
    folder: str | os.PathLike[str] | None = None,
    watch: Callable[[RaceProgress], None] | None = None,
) -> RaceTable:
    r"""Tune each recipe on a validation loss with the same budget, and report its test loss.

    $$h_r = \operatorname{argmin}_{h \in H_r} \operatorname{mean}_{s \in S}
        \ell_\text{validation}(r, h, s), \qquad
      L_r = \operatorname{mean}_{s \in S'} \ell_\text{test}(r, h_r, s)$$

    with $H_r$ the points of recipe $r$, tuned from seeds $S$ and reported from other ones $S'$. So
    the report is of data and seeds that no choice has seen. First parameters and batches of a seed
    are the same for all recipes. Where a state keeps an average of the parameters, such as that of
    schedule-free AdamW, both losses are of the average.

    Args:
        recipes: name -> a factory that takes `learning_rate`, a schedule, or a `gk.RaceEntry` with
            the space of what is tuned. Where that has no learning rate, it is tuned from a third of
            the factory's default to a hundred times it.
        task: a `gk.Task`.
        steps: updates of every run.
        trials: points for each recipe: of one range, evenly spaced; of more, a Sobol sequence; of
            lists alone, all combinations where they are fewer. A single trial is the middle.
        tuning_seeds: runs for each of them.
        seeds: runs of the point that is chosen.
        schedule: `(peak rate, steps) -> schedule`, of a rate that is traced; linear warm-up for a
            tenth of all steps, then linear decay to zero, if not given.
        memory: bytes of one device to use at most; half of it by default.
        folder: runs are saved here, as `gk.sweep` does; the same race with the same folder goes on.
        watch: called with a `RaceProgress`. What it raises ends the race.

    Returns:
        A `RaceTable`: `table()` a text, `rows()` one dict for each recipe, `results` all numbers,
        `plot(axes)` a picture on two axes.

    Errors: no recipes; a factory that does not take `learning_rate` or what its space names, or
        refuses a point of it; a transform that cannot be jitted; a task whose losses are not
        numbers; a folder of another race. All but the last are found before anything is trained.
    Paper: Dahl et al., "Benchmarking Neural Network Training Algorithms", arXiv:2306.07179, for the
        equal budget and the quasi-random points.
    Departure: the paper scores the time to a target; `RaceTable.results[...].steps_to` gives it.
    Limits: what wins on a small task in few steps need not win on a large one. A choice at the edge
        of its space says that the space was too small for that recipe, and is in the table's notes.

    >>> loss = lambda w, x: ((w - x) ** 2).mean()
    >>> task = gk.Task("bowl", init=lambda key: jnp.zeros(2), loss=loss,
    ...     data=lambda key: 1 + 0.1 * jax.random.normal(key, (2,)),
    ...     validation=lambda w: loss(w, 1.0), test=lambda w: loss(w, 1.0))
    >>> found = gk.race({"adamw": gk.adamw, "sgd": gk.sgd}, task, steps=20)
    >>> sorted(row["recipe"] for row in found.rows())
    ['adamw', 'sgd']
    """
    check.count(
        NAME, steps=steps, trials=trials, tuning_seeds=tuning_seeds, seeds=seeds
    )
    if not isinstance(recipes, Mapping) or not recipes:
        text = f"recipes must name one factory or more, got {recipes!r}."
        raise error(ValueError, NAME, f"{text} Pass {{'adamw': gk.adamw}}, say.")
    if not isinstance(task, Task):
        text = f"task must be a gk.Task, got {type(task).__name__}."
        raise error(TypeError, NAME, f"{text} Give it init, loss, data and two losses.")
    entries = {name: _entry(name, given) for name, given in recipes.items()}
    places = {name: _place(folder, name) for name in entries}
    if folder is not None and len({*places.values()}) < len(places):
        text = f"recipes must have names that differ in letters and digits, got {[*places]}."
        raise error(ValueError, NAME, f"{text} Rename one.")
    shape = _linear if schedule is None else _checked(schedule, steps)
    heats = {
        name: _Heat(entry, task, steps, trials, shape, memory, places[name])
        for name, entry in entries.items()
    }
    judges = {"validation": task.validation, "test": task.test}
    first, *_ = entries.values()
    Problem(first.make_tx, task.init, task.loss, task.data).check(NAME, judges)
    for name, heat in heats.items():
        heat.check(f"recipe {name!r}")
    results = {
        name: heats.pop(name).run(tuning_seeds, seeds, _saying(watch, name))
        for name in entries  # no programs are kept of those that are done
    }
    return RaceTable(task.name, task.summary, steps, results)


class _Heat:
    """The race of one recipe: its programs are compiled once."""

    def __init__(
        self,
        entry: RaceEntry,
        task: Task,
        steps: int,
        trials: int,
        shape: Shape,
        memory: float | None,
        folder: pathlib.Path | None,
    ):
        def make(learning_rate: Any, **others: Any) -> Any:
            return entry.make_tx(learning_rate=shape(learning_rate, steps), **others)

        self._entry, self._task, self._steps, self._folder = entry, task, steps, folder
        self._points = _points(entry.space, trials)
        problem = Problem(make, task.init, task.loss, task.data)
        self._programs = Programs(NAME, problem, entry.space, steps, memory)

    def check(self, subject: str) -> None:
        """Refuse a recipe that cannot be trained at all of its points."""
        self._programs.check(subject, self._points)

    def run(self, tuning_seeds: int, seeds: int, say: Any) -> Result:
        """Tune, choose, and report."""
        tuned = self._empty(
            self._points, range(TUNING_SEEDS, TUNING_SEEDS + tuning_seeds), None
        )
        self._train(tuned, "validation", say(False))
        if not np.isfinite(tuned.held_out).all(axis=1).any():
            return Result(tuned, None, None, np.nan, np.nan, 0)
        pick = tuned.pick()
        every = -(-self._steps // MARKS)
        report = self._empty([pick.point], range(seeds), every)
        costs = self._train(report, "test", say(True), timed=True)
        return Result(tuned, pick, report, *costs)

    def _empty(
        self, points: list[Point], seeds: range, every: int | None
    ) -> SweepTable:
        marks = sweep_table.marks(self._steps, every)
        return sweep_table.empty(
            self._entry.space, points, (*seeds,), self._steps, marks
        )

    def _train(
        self, table: SweepTable, loss: str, watch: Any, timed: bool = False
    ) -> tuple[float, float, int]:
        """Fill the table; seconds a step, to compile, and bytes of state, where they are timed."""
        task, held_out = self._task, getattr(self._task, loss)
        folder = self._folder and self._folder / loss
        about = {
            "task": f"{task.name}: {task.summary}",
            "recipe": self._entry.about,
        }
        with Record(NAME, folder, table, about).opened() as record:
            training = Training(self._programs, table, record, held_out, watch)
            training.train(range(len(table.points)), self._steps)
            if not timed:
                return np.nan, np.nan, 0
            seconds, compiling, size = record.kept("costs", lambda: _costs(training))
            return seconds, compiling, int(size)


def _costs(training: Training) -> list[float]:
    """Seconds a step, seconds to compile, and bytes of state of the run that is reported."""
    program = training.program(0)
    return [training.seconds_per_step(0), program.seconds, program.state_bytes]


def _entry(name: str, given: RaceEntry | Callable[..., Any]) -> RaceEntry:
    """The recipe with the space of what is tuned."""
    if not isinstance(name, str):
        text = f"recipes must be named by text, got {name!r}."
        raise error(TypeError, NAME, f"{text} Pass {{'adamw': gk.adamw}}, say.")
    entry = given if isinstance(given, RaceEntry) else RaceEntry(given, {})
    if not callable(entry.make_tx):
        text = f"recipes[{name!r}] must be a factory or a gk.RaceEntry of one, got {entry.make_tx!r}."
        raise error(TypeError, NAME, f"{text} Pass gk.adamw, say, without calling it.")
    if not isinstance(entry.space, Mapping):
        text = (
            f"space of recipes[{name!r}] must name what is tuned, got {entry.space!r}."
        )
        raise error(
            TypeError, NAME, f"{text} Pass {{'b1': [0.9, 0.95]}}, say, or {{}}."
        )
    rates = {"learning_rate": rates_of(entry.make_tx)}
    return entry._replace(space=spaces.checked(NAME, rates | dict(entry.space)))


def rates_of(make: Callable[..., Any]) -> LogUniform:
    """Learning rates from a third of a factory's default to a hundred times it.

    Defaults suit large models and long runs; small ones were best at up to a hundred times.
    """
    while isinstance(make, functools.partial):
        make = make.func
    try:
        parameter = inspect.signature(make).parameters.get("learning_rate")
    except (TypeError, ValueError):
        parameter = None
    default = parameter.default if parameter is not None else None
    least = (default if isinstance(default, float) else 1e-3) / 3
    return LogUniform(least, 300 * least)


def _points(space: Space, trials: int) -> list[Point]:
    """As many points as trials: evenly spaced in one range, else a Sobol sequence.

    One trial is the middle of what is tuned.
    """
    if trials == 1:
        return [{name: spaces.at(values, 0.5) for name, values in space.items()}]
    ranges = {k: x for k, x in space.items() if isinstance(x, spaces.Range)}
    fixed = {k: x[0] for k, x in space.items() if k not in ranges and len(x) == 1}
    if len(ranges) == 1 and len(fixed) == len(space) - 1:
        ((name, values),) = ranges.items()
        return [fixed | {name: values.at(i / (trials - 1))} for i in range(trials)]
    return spaces.points(NAME, space, trials, 0)


def _checked(schedule: Shape, steps: int) -> Shape:
    """`schedule`, if it makes schedules, or numbers, of rates that are traced."""

    def first(rate: jax.Array) -> Any:
        made: Any = schedule(rate, steps)
        return made(jnp.int32(0)) if callable(made) else made

    got, cause = repr(schedule), None
    if callable(schedule):
        try:
            made = jax.eval_shape(
                first, jax.ShapeDtypeStruct((), jnp.result_type(float))
            )
            if getattr(made, "shape", None) == ():
                return schedule
            got = f"one that gives {made}"
        except Exception as found:
            got, cause = told(found), found
    text = f"schedule must be a function (peak rate, steps) -> schedule, got {got}."
    remedy = "Pass lambda rate, steps: gk.schedule_by_cosine(rate, steps=steps), say."
    raise error(TypeError, NAME, f"{text} {remedy}") from cause


def _linear(rate: Any, steps: int) -> Schedule:
    return schedules.warmup_linear(rate, steps, steps // 10)


def _place(folder: Any, name: str) -> pathlib.Path | None:
    safe = re.sub(r"[^\w.=-]+", "_", name).strip("._") or "_"
    return None if folder is None else pathlib.Path(folder) / safe


def _saying(watch: Any, name: str) -> Callable[[bool], Any]:
    def say(reporting: bool) -> Any:
        if watch is None:
            return None
        return lambda progress: watch(RaceProgress(name, reporting, progress))

    return say
