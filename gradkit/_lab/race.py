"""Train every recipe on one task; a stopped race resumes."""

import functools
import json
import pathlib
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gradkit as gk
from gradkit._lab import checkpoints, program, sweep, verdict
from gradkit._lab.plan import Plan, chosen
from gradkit._lab.program import State
from gradkit._lab.sweep import Sweep
from gradkit._lab.tasks import Task

Watch = Callable[[str, int, float, float], None]  # recipe, step, loss, units a second
Stop = Callable[[], bool]


class Stopped(Exception):
    """The user asked to stop; everything up to here is saved."""


def run(
    task: Task, plan: Plan, out: pathlib.Path, watch: Watch, stop: Stop
) -> dict[str, Any]:
    """Results by recipe; those that `out` already holds are not run again."""
    examine = sweep.examiner(task)
    ground = functools.cache(lambda: program.ground(task, plan.steps, plan.seeds))
    finished, unfinished = out / "recipes", out / "checkpoints"
    finished.mkdir(exist_ok=True)
    arguments = chosen(task, plan)

    def result(name: str, rates: list[float]) -> dict[str, Any]:
        recipe = functools.partial(getattr(gk, name), **arguments[name])
        watch(name, 0, float("nan"), 0.0)
        prepared = sweep.prepare(task, recipe, rates, ground())
        folder = unfinished / name
        state, seconds = train(name, prepared, task, plan, folder, watch, stop)
        held_out = examine(state.params)
        return verdict.judge(rates, np.asarray(state.losses), held_out) | {
            "seconds_per_step": seconds / plan.steps,
            "compile_seconds": prepared.compile_seconds,
            "state_bytes": prepared.state_bytes,
            "parameters": prepared.parameters,
        }

    results = {}
    for name, rates in plan.rates.items():
        record = finished / f"{name}.json"
        if record.exists():
            results[name] = json.loads(record.read_text())
            watch(name, plan.steps, verdict.final(results[name], "train"), 0.0)
        elif stop():
            raise Stopped(f"the start of {name}")
        else:
            results[name] = result(name, rates)
            checkpoints.write_json(record, results[name])
    shutil.rmtree(unfinished, ignore_errors=True)
    return results


def train(
    name: str,
    prepared: Sweep,
    task: Task,
    plan: Plan,
    folder: pathlib.Path,
    watch: Watch,
    stop: Stop,
) -> tuple[State, float]:
    """The final state, and the seconds of training from the first one."""
    stride = max(1, plan.steps // 30)
    runs = plan.seeds * len(plan.rates[name])
    with checkpoints.checkpoints(folder) as saved:
        step, state, seconds = saved.latest(prepared.start)
        while step < plan.steps:
            save = (step // plan.save_every + 1) * plan.save_every
            to = min(step + stride, save, plan.steps)
            clock = time.perf_counter()
            state = prepared.advance(state, step, to)
            elapsed = time.perf_counter() - clock
            loss = float(np.fmin.reduce(np.asarray(state.losses[to - 1]), axis=None))
            watch(name, to, loss, task.units * runs * (to - step) / elapsed)
            step, seconds = to, seconds + elapsed
            stopped = stop() and step < plan.steps
            if step == save or stopped:
                saved.save(step, state, seconds)
            if stopped:
                raise Stopped(f"step {step} of {plan.steps} of {name}")
    return state, seconds
