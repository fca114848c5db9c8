"""Races on several tasks, scored by the way to the target's loss."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

import gradkit as gk
from gradkit._lab import checkpoints, plan, plots, report, screen, start, tasks
from gradkit._lab.complaint import Complaint

MOST = 4.0  # times the best recipe's cost, where profiles end, as in AlgoPerf


def run(
    names: str,
    recipes: str,
    target: str,
    steps: int,
    trials: int,
    seeds: int,
    tune: str,
    out: pathlib.Path,
    resume: bool,
) -> None:
    """Race on each task, in a folder of its own, then write and print the scores."""
    counts: dict[str, Any] = {"steps": steps, "trials": trials, "seeds": seeds}
    planned = plan.plan(recipes, tune=tune, **counts)
    entered = [*planned.calls]
    if target not in entered:
        raise Complaint(
            f"--target must be one of the recipes, {', '.join(entered)}, got {target!r}."
        )
    chosen = {task.name: task for task in map(tasks.named, names.split(","))}
    if len(chosen) <= names.count(","):
        raise Complaint(f"--tasks must be different ones, got {names!r}.")
    settings = {
        "task": "bench",
        "tasks": [*chosen],
        "target": target,
        "recipes": entered,
    }
    checkpoints.claim(out, settings | counts | {"tune": tune}, resume)
    races = {}
    for name, task in chosen.items():
        folder = out / name
        going_on = folder.exists() and resume
        races[name] = start.start(task, planned, folder, going_on)
    finish(races, target, settings | counts, out)


def finish(
    races: Mapping[str, gk.RaceTable],
    target: str,
    settings: dict[str, Any],
    out: pathlib.Path,
) -> None:
    """Write and print the scores of races that are done."""
    steps, times = costs(races, target)
    scored = scores(steps), scores(times)
    results = {
        "settings": settings,
        "versions": report.versions(),
        "steps": {name: by_task(races, row) for name, row in steps.items()},
        "time": {name: by_task(races, row) for name, row in times.items()},
        "trials": {
            name: len(result.trials.points)
            for name, result in next(iter(races.values())).results.items()
        },
        "score_by_steps": scored[0],
        "score_by_time": scored[1],
    }
    rows = cells(races, target, steps, times, scored)
    checkpoints.write_json(out / "results.json", results)
    checkpoints.write(out / "table.md", markdown(rows, results))
    checkpoints.write(
        out / "curves.png", plots.profiles(profile(steps), profile(times))
    )
    table, console = screen.table(), screen.console()
    for i, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if i else "left")
    for row in rows[1:]:
        table.add_row(*row)
    screen.show(f"Steps and time to the test loss of tuned {target}", table, console)
    console.print(*map("- {}".format, notes(results)), sep="\n")
    print(f"\nIn {out}: results.json, curves.png, table.md, and a folder for each task")


def costs(
    races: Mapping[str, gk.RaceTable], target: str
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """For each recipe and task, steps and time to the target's loss, by the target's; inf if never."""
    steps, times = {}, {}
    for name in next(iter(races.values())).results:
        row = []
        for race in races.values():
            reached = race.results[name].steps_to(race.target(target))
            row.append(np.inf if reached is None else reached / race.steps)
        pace = [
            race.results[name].seconds_per_step / race.results[target].seconds_per_step
            for race in races.values()
        ]
        steps[name] = np.array(row)
        times[name] = np.where(np.isfinite(row), np.array(row) * pace, np.inf)
    return steps, times


def profile(costs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """For each recipe the ratios to the best cost of each task, sorted; inf if not reached."""
    best = np.min([*costs.values()], axis=0)
    with np.errstate(invalid="ignore"):
        return {
            name: np.sort(np.where(np.isfinite(row), row / best, np.inf))
            for name, row in costs.items()
        }


def scores(costs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The mean height of each profile over ratios from 1 to `MOST`, in [0, 1]."""
    return {
        name: float(np.mean(np.clip(MOST - ratios, 0, None)) / (MOST - 1))
        for name, ratios in profile(costs).items()
    }


def by_task(races: Mapping[str, gk.RaceTable], row: np.ndarray) -> dict[str, Any]:
    """Numbers by the name of their task."""
    return dict(zip(races, report.numbers(row)))


def cells(
    races: Mapping[str, gk.RaceTable],
    target: str,
    steps: Mapping[str, np.ndarray],
    times: Mapping[str, np.ndarray],
    scored: tuple[dict[str, float], dict[str, float]],
) -> list[tuple[str, ...]]:
    """A head and a row for each recipe, the highest score by steps first."""
    by_steps, by_time = scored
    head = "recipe", *races, "score by steps", "by time", "loses to " + target
    rows: list[tuple[str, ...]] = [head]
    for name in sorted(by_steps, key=lambda name: -by_steps[name]):
        ways = [
            "never" if not np.isfinite(s) else f"{s:.2f} ({t:.2f})"
            for s, t in zip(steps[name], times[name])
        ]
        worse = [
            task
            for task, race in races.items()
            if race.results[name].loss.value > race.target(target)
        ]
        score = f"{by_steps[name]:.2f}", f"{by_time[name]:.2f}"
        rows.append((name, *ways, *score, ", ".join(worse)))
    return rows


def notes(results: dict[str, Any]) -> list[str]:
    """How the table was made."""
    s = results["settings"]
    return [
        f"A cell is the part of {report.counted(s['steps'], 'step')} after which the mean test loss is at most that "
        f"of tuned {s['target']} at its end, and in brackets the same by the time of a step.",
        f"{report.trials(results['trials'])} a task, chosen by the validation loss, and "
        f"{report.counted(s['seeds'], 'other seed')} for the test loss.",
        f"A score is the area under the performance profile for ratios from 1 to {MOST:g}.",
    ]


def markdown(rows: list[tuple[str, ...]], results: dict[str, Any]) -> str:
    """The table and the notes, as Markdown."""
    head, *others = rows
    lines = [head, ("---", *("---:",) * (len(head) - 1)), *others]
    table = "\n".join("| " + " | ".join(row) + " |" for row in lines)
    made = ", ".join(f"{k} {x}" for k, x in results["versions"].items())
    bullets = "\n".join(f"- {note}" for note in [*notes(results), f"Made with {made}."])
    title = f"# gradkit bench: the way to tuned {results['settings']['target']}"
    return f"{title}\n\n{table}\n\n{bullets}\n"
