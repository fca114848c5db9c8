"""The training of a sweep's runs: as many at once as suits the device, none of them lost."""

import functools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from gradkit._core import check
from gradkit._core.call import error
from gradkit._core.measure import host
from gradkit._core.measure import space as spaces
from gradkit._core.measure.record import Record, Run
from gradkit._core.measure.space import Point, Space
from gradkit._core.measure.sweep_table import SweepTable, recent
from gradkit._core.measure.trials import (
    HeldOut,
    Judge,
    Problem,
    Trials,
    best_together,
    trials,
)

STRIDES = 20  # calls of `watch` for each group of runs
SAVE_EVERY = 60.0  # seconds between files of runs under way


class SweepProgress(NamedTuple):
    """How far a sweep is."""

    finished: int  # points, of `points`
    points: int
    step: int  # of the runs that are trained now, of `steps`
    steps: int
    loss: float  # the lowest of these runs' last ones


Watch = Callable[[SweepProgress], None]


class Programs:
    """The compiled training of a problem, each program once, for as many runs as fit."""

    def __init__(
        self,
        method: str,
        problem: Problem,
        space: Space,
        steps: int,
        memory: float | None = None,
    ):
        """Nothing is compiled yet; `memory` is in bytes, half of the device's if not given."""
        if memory is not None:
            check.positive(method, memory=memory)
        self.memory = host.available() / 2 if memory is None else memory
        self.numbers = [k for k, values in space.items() if spaces.is_number(values)]
        self.together = best_together(problem)
        self._method, self._problem, self._steps = method, problem, steps
        self._compiled: dict[Any, Trials] = {}

    def check(self, subject: str, points: Sequence[Point]) -> None:
        """Refuse points at which `subject`, what makes the transform, makes none that trains."""
        self._problem.check_points(self._method, subject, points, self.numbers)

    def static(self, point: Point) -> Point:
        """The hyperparameters of a point that are no numbers: each has programs of its own."""
        return {k: x for k, x in point.items() if k not in self.numbers}

    def of(self, point: Point, runs: int) -> Trials:
        """The program of so many runs like those of this point, of fewer if memory is short."""
        static, runs = self.static(point), runs if self.together else 1
        key = repr(static), runs
        if key not in self._compiled:
            make = functools.partial(self._problem.make_tx, **static)
            self._compiled[key] = self._fitting(
                self._problem._replace(make_tx=make), runs
            )
        return self._compiled[key]

    def _fitting(self, problem: Problem, runs: int) -> Trials:
        while True:
            made = trials(problem, self.numbers, self._steps, runs)
            if made.bytes <= self.memory:
                return made
            if runs == 1:
                text = (
                    f"memory must be at least {made.bytes:.3g} bytes for one run, got "
                    f"{self.memory:.3g}. Give more, or use a smaller model."
                )
                raise error(ValueError, self._method, text)
            runs = max(1, min(runs - 1, int(runs * self.memory / made.bytes)))


class Training:
    """Trains points of a table, which is filled in place.

    Runs are independent. Where they are best trained together, they are one batch of arrays, as
    large as memory allows; else each is a program of its own, and every core has one.
    """

    def __init__(
        self,
        programs: Programs,
        table: SweepTable,
        record: Record,
        held_out: HeldOut | None = None,
        watch: Watch | None = None,
    ):
        """Nothing is trained yet."""
        self._programs, self._table, self._record = programs, table, record
        self._held_out, self._watch = held_out, watch

    def train(self, going: Sequence[int], stop: int) -> None:
        """Train these points from the start up to step `stop`."""
        groups: dict[str, list[int]] = {}
        for i in going:
            static = self._programs.static(self._table.points[i])
            groups.setdefault(repr(static), []).append(i)
        for group in groups.values():
            runs = [
                (i, j)
                for i in group
                for j in range(len(self._table.seeds))
                if (i, j) not in self._record.done
            ]
            if runs:
                first = self._table.points[group[0]]
                self._train(self._programs.of(first, len(runs)), runs, stop)

    def better(self, going: Sequence[int], stop: int, halving: int) -> list[int]:
        """The best fraction after `stop` steps; the others are finished."""
        last = recent(self._table.losses[going, :, :stop]).mean(axis=1)
        order = np.argsort(np.where(np.isfinite(last), last, np.inf), kind="stable")
        kept = sorted(going[i] for i in order[: len(going) // halving])
        for i in going:
            for j in range(len(self._table.seeds)):
                if i not in kept:
                    self._record.save((i, j))
                elif self._table.steps[i] == stop:
                    self._record.done.remove((i, j))  # it goes on
        return kept

    def program(self, i: int) -> Trials:
        """The program of one run of point `i`."""
        return self._programs.of(self._table.points[i], 1)

    def seconds_per_step(self, i: int, least: float = 0.5) -> float:
        """The median time of a step of one run of point `i`, with nothing beside it."""
        one = self.program(i)
        steps = self._table.losses.shape[2]
        given = self._put(one, [(i, 0)])
        runs, stride, times = one.begin(given), max(1, steps // 50), []
        for start in range(0, steps - stride + 1, stride):
            clock = time.perf_counter()
            runs = jax.block_until_ready(
                one.advance(runs, given, start, start + stride)
            )
            times.append((time.perf_counter() - clock) / stride)
            if len(times) > 5 and sum(times) * stride > least:
                break
        return float(np.median(times[1:] or times))

    def _put(self, compiled: Trials, runs: Sequence[Run]) -> Any:
        """Seeds and numbers of these runs; the last one fills up what is left of the program."""
        filled = [*runs, *[runs[-1]] * (compiled.runs - len(runs))]
        points = [self._table.points[i] for i, _ in filled]
        seeds = [self._table.seeds[j] for _, j in filled]
        return compiled.put(
            seeds, {k: [point[k] for point in points] for k in self._programs.numbers}
        )

    def _train(self, compiled: Trials, runs: Sequence[Run], stop: int) -> None:
        """Train these runs in groups, a core or the whole device for each."""
        groups = [
            runs[k : k + compiled.runs] for k in range(0, len(runs), compiled.runs)
        ]
        room = int(self._programs.memory // max(1, compiled.bytes))
        cores = 1 if self._programs.together else min(host.cores(), max(1, room))
        judge = compiled.judge(self._held_out)
        said: queue.SimpleQueue[Any] = queue.SimpleQueue()
        leaving = threading.Event()
        with ThreadPoolExecutor(cores, "gradkit") as pool:
            for group in groups:
                given = self._put(compiled, group)
                work = pool.submit(
                    self._run, compiled, judge, given, group, stop, said.put, leaving
                )
                work.add_done_callback(said.put)
            try:
                left = len(groups)
                while left:
                    if isinstance(news := said.get(), Future):
                        left -= 1
                        news.result()
                    else:
                        step, loss = news
                        self._say(step, loss, stop)
            except BaseException:
                leaving.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _run(
        self,
        compiled: Trials,
        judge: Judge,
        given: Any,
        group: Sequence[Run],
        stop: int,
        say: Callable[[Any], None],
        leaving: threading.Event,
    ) -> None:
        """Train a group of runs, unless told to leave; then what is done is kept."""
        marks = [mark for mark in self._table.marks if mark <= stop]
        strides = range(0, stop, -(-stop // STRIDES))
        curves = np.full((compiled.runs, len(self._table.marks)), np.nan)
        first = compiled.begin(given), curves
        step, (runs, curves) = self._record.paused(group, first)
        saved = time.monotonic()
        for to in sorted({*strides, *marks, stop}):
            if to <= step:
                continue
            if leaving.is_set():
                return self._record.pause(group, step, (runs, curves))
            runs, step = compiled.advance(runs, given, step, to), to
            last = np.asarray(runs.losses[:, to - 1])
            if to in marks:
                curves[:, marks.index(to)] = judge(runs)
            say((to, float(np.fmin.reduce(last))))
            if time.monotonic() > saved + SAVE_EVERY and to < stop:
                self._record.pause(group, step, (runs, curves))
                saved = time.monotonic()
        losses = np.asarray(runs.losses)
        for row, (i, j) in enumerate(group):
            self._table.steps[i] = stop
            self._table.losses[i, j] = losses[row]
            self._table.curves[i, j] = curves[row]
            self._record.save((i, j), ended=stop == losses.shape[1])
        self._record.forget(group)

    def _say(self, step: int, loss: float, stop: int) -> None:
        if self._watch is None:
            return
        count = len(self._table.seeds)
        whole = sum(
            all((i, j) in self._record.done for j in range(count))
            for i in range(len(self._table.points))
        )
        self._watch(SweepProgress(whole, len(self._table.points), step, stop, loss))
