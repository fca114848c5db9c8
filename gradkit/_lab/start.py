"""A race from its options to its result files."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import gradkit as gk
from gradkit._lab import checkpoints, plots, progress, report, screen
from gradkit._lab.complaint import Complaint
from gradkit._lab.plan import Plan, afford, settings


def start(task: gk.Task, plan: Plan, out: pathlib.Path, resume: bool) -> gk.RaceTable:
    """Run what has no results yet, then write and print all results."""
    afford(task, plan)
    setting = settings(task, plan)
    checkpoints.claim(out, setting, resume)
    log = screen.console(stderr=True)
    with (
        refused(),
        progress.interruptible(log.print) as check,
        progress.board([*plan.calls], log) as board,
    ):

        def watch(at: Any) -> None:
            board(at)
            check()

        found = gk.race(
            plan.entries(task),
            task,
            plan.steps,
            trials=plan.trials,
            tuning_seeds=plan.tuning_seeds,
            seeds=plan.seeds,
            schedule=plan.schedule,
            folder=out / "runs",
            watch=watch,
        )
    results = report.results(setting, found)
    checkpoints.write(out / "curves.png", plots.race(found))
    checkpoints.write(out / "table.md", report.markdown(results, found))
    checkpoints.write_json(out / "results.json", results)
    show(results, found)
    print(f"\nIn {out}: results.json, curves.png, table.md")
    return found


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Say the library's own errors, as of a damaged file or a full disk, in one line."""
    try:
        yield
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, Complaint) or not text.startswith("gradkit."):
            raise
        raise Complaint(text.partition(": ")[2]) from error


def show(results: dict[str, Any], found: gk.RaceTable) -> None:
    """Print the table and the notes."""
    print(f"\n{found.table()}\n")
    console = screen.console()
    for note in report.notes(results):
        console.print("-", note)
