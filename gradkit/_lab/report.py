"""The results of a race as one JSON value, as Markdown, and what to say beside them."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

import gradkit as gk

PACKAGES = ("gradkit", "jax", "jaxlib", "flax", "optax", "numpy")


def results(settings: dict[str, Any], found: gk.RaceTable) -> dict[str, Any]:
    """A race as JSON: settings, versions, and all numbers of all recipes."""
    rows = {row.pop("recipe"): row for row in found.rows()}
    return {
        "settings": settings,
        "versions": versions(),
        "recipes": {
            name: {
                "chosen": result.point,
                "at_edge": list(result.pick.at_edge) if result.pick else [],
                **{
                    key: number(rows[name][key])
                    for key in ("test_loss", "low", "high", "steps_to_adamw")
                },
                "test_losses": numbers(result.losses),
                "marks": list(result.report.marks) if result.report else [],
                "curve": numbers(result.curve),
                "trials": [
                    {**point, "validation_loss": numbers(losses)}
                    for point, losses in zip(result.trials.points, result.trials.final)
                ],
                "seconds_per_step": number(result.seconds_per_step),
                "seconds_to_compile": number(result.seconds_to_compile),
                "state_bytes": result.state_bytes,
            }
            for name, result in found.ranked()
        },
    }


def versions() -> dict[str, str]:
    """Versions of packages and Python, the platform and the device."""
    device = jax.devices()[0].device_kind
    return {name: version(name) for name in PACKAGES} | {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device}, {os.cpu_count()} CPU cores",
    }


def notes(results: dict[str, Any]) -> list[str]:
    """Notes on how the table was made, a sentence or two each."""
    setting = results["settings"]
    shape, seeds = setting["schedule"], setting["seeds"]
    fixed = [x["fixed"] for x in setting["recipes"].values()]
    had = {name: len(x["trials"]) for name, x in results["recipes"].items()}
    summary = f"{setting['summary']}; " if setting["summary"] else ""
    return [
        f"Task {setting['task']}: {summary}{counted(setting['steps'], 'step')}.",
        f"{trials(had)} from {counted(setting['tuning_seeds'], 'seed')}; the one with the lowest "
        f"validation loss is trained from {counted(seeds, 'other seed')}, and its test loss is in "
        "the table" + ", with Student's t interval" * (seeds > 1) + ".",
        f"Schedule: {shape['kind']}, warm-up {shape['warmup']:g} of all steps"
        + (f", cool-down {shape['cooldown']:g}" * (shape["kind"] in ("wsd", "sqrt")))
        + ". Batches are the same for all recipes.",
        f"Not tuned: {', '.join(fixed)}; the rest is default.",
        "Steps to adamw: the part of all steps until the mean test loss was down to adamw's last; "
        "time: the same by the time of a step, of one run with nothing beside it.",
        "What wins on a small model in a short run need not win elsewhere.",
    ]


def trials(had: Mapping[str, int]) -> str:
    """How many trials the recipes have, the beginning of a sentence."""
    if len({*had.values()}) == 1:
        return f"Each recipe has {counted(next(iter(had.values())), 'trial')}"
    said = (f"{name} has {counted(n, 'trial')}" for name, n in sorted(had.items()))
    return ", ".join(said)


def counted(count: int, what: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{count} {what}{'s' * (count != 1)}"


def markdown(results: dict[str, Any], found: gk.RaceTable) -> str:
    """The table and the notes, as Markdown."""
    head, *rows = found.cells()
    lines = [head, ("---", "---", *("---:",) * (len(head) - 2)), *rows]
    table = "\n".join("| " + " | ".join(row) + " |" for row in lines)
    made = ", ".join(f"{k} {x}" for k, x in results["versions"].items())
    said = [*notes(results), *found.warnings(), f"Made with {made}."]
    bullets = "\n".join(f"- {note}" for note in said)
    return f"# gradkit race: {found.task}\n\n{table}\n\n{bullets}\n"


def numbers(array: np.ndarray) -> Any:
    """Nested lists of numbers, with None for those that are not finite."""
    if np.ndim(array):
        return [numbers(part) for part in array]
    return number(array)


def number(x: Any) -> Any:
    """A number of Python, or None for nothing and for what is not finite."""
    if x is None or isinstance(x, int):
        return x
    return float(x) if np.isfinite(x) else None


def version(package: str) -> str:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from source"
