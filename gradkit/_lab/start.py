"""A race from its options to its result files."""

import pathlib
from typing import Any

from rich.console import Console

from gradkit._lab import checkpoints, plots, progress, race, report, screen, tasks
from gradkit._lab.complaint import Complaint, pick
from gradkit._lab.plan import Plan, afford, settings
from gradkit._lab.tasks import Task


def task(name: str, data: pathlib.Path | None, out: pathlib.Path) -> Task:
    """The task of this name, on its own data or on the text at `data`, without `out`."""
    if pick("task", name, ("bytes", "digits")) == "bytes":
        return tasks.next_byte(data, without=out)
    if data is not None:
        raise Complaint("--data is for the task bytes; digits brings its own.")
    return tasks.digits()


def start(task: Task, plan: Plan, out: pathlib.Path, resume: bool) -> None:
    """Run the recipes without results, then write and print all results."""
    afford(task, plan)
    setting = settings(task, plan)
    checkpoints.claim(out, setting, resume)
    log = screen.console(stderr=True)
    with (
        progress.interruptible(log.print) as stop,
        progress.board(list(plan.rates), plan.steps, task.unit, log) as watch,
    ):
        recipes = race.run(task, plan, out, watch, stop)
    results = report.results(setting, recipes)
    checkpoints.write(out / "curves.png", plots.curves(results))
    checkpoints.write(out / "table.md", report.markdown(results))
    checkpoints.write_json(out / "results.json", results)
    show(results, screen.console())
    print(f"\nIn {out}: results.json, curves.png, table.md")


def show(results: dict[str, Any], console: Console) -> None:
    """Print the tables and notes."""
    for sheet in report.standings(results), report.sensitivity(results):
        table = screen.table()
        for column, *cells in zip(sheet.columns, *sheet.rows):
            justify = "left" if column == "recipe" else "right"
            table.add_column(column, justify=justify, min_width=max(map(len, cells)))
        for row in sheet.rows:
            table.add_row(*row)
        screen.show(sheet.title, table, console)
    for note in report.notes(results):
        console.print("-", note)
