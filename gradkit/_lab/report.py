"""The results of a race as one JSON value, as tables, and as Markdown."""

import importlib.metadata
import os
import platform
from typing import Any, NamedTuple

import jax

from gradkit._lab import verdict

PACKAGES = ("gradkit", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Sheet(NamedTuple):
    """One table: what it shows, its columns, its rows."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def results(settings: dict[str, Any], recipes: dict[str, Any]) -> dict[str, Any]:
    """A race as JSON: settings, versions, and recipes with their steps to AdamW's loss."""
    target = recipes["adamw"]["curve"][-1] if "adamw" in recipes else None
    for result in recipes.values():
        result["steps_to_adamw"] = verdict.steps_to(result["curve"], target)
    return {"settings": settings, "versions": versions(), "recipes": recipes}


def versions() -> dict[str, str]:
    """Versions of packages and Python, the platform and the device."""
    device = jax.devices()[0].device_kind
    return {name: version(name) for name in PACKAGES} | {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device}, {os.cpu_count()} CPU cores",
    }


def ranked(race: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The recipes and their results, the lowest held-out loss first."""
    return sorted(race["recipes"].items(), key=lambda item: verdict.final(item[1]))


def standings(race: dict[str, Any]) -> Sheet:
    """Every recipe at its best rate."""
    columns = (
        "recipe",
        "best rate",
        "held-out loss",
        "train loss",
        "to AdamW",
        "ms/step",
        "bytes",
    )
    rows = [_standing(name, result) for name, result in ranked(race)]
    return Sheet("Every recipe at its best learning rate", columns, rows)


def sensitivity(race: dict[str, Any]) -> Sheet:
    """The held-out loss of every recipe at every rate."""
    ordered = ranked(race)
    grid = ordered[0][1]["rates"]
    columns = ("recipe", "from rate", *(f"× {rate / grid[0]:.3g}" for rate in grid))
    rows = [
        (name, f"{result['rates'][0]:.2g}", *map(_mean, result["final_eval_loss"]))
        for name, result in ordered
    ]
    return Sheet("Held-out loss over the whole grid of learning rates", columns, rows)


def notes(race: dict[str, Any]) -> list[str]:
    """Notes on how the tables were made, a sentence or two each."""
    setting, recipes = race["settings"], race["recipes"]
    size = next(iter(recipes.values()))["parameters"]
    edge = any(result["best_at_edge"] for result in recipes.values())
    sentences = [
        f"Task: {setting['summary']}; {size:,} parameters, {setting['steps']} steps.",
        "Tuned is the learning rate alone, on equally many rates for each recipe, spread "
        "over two decades. The batches and the shape of the schedule (a tenth of warm-up, "
        "then linear decay to zero) are the same for all.",
        f"The rest is each recipe's default, except {_non_defaults(setting['arguments'])}.",
        f"Losses are nats, means over {setting['seeds']} seeds ± half their range. "
        "Train losses are means of the last tenth of all steps.",
        "To AdamW: the steps until the train loss was down to AdamW's last. ms/step: of one "
        "model among all that run at once. Bytes: of optimizer state, a parameter.",
        "A small model and a short run: the order may differ elsewhere.",
    ]
    warning = (
        "*: the best rate is at the edge of its grid, a better one may lie outside."
    )
    return [*sentences, warning] if edge else sentences


def markdown(race: dict[str, Any]) -> str:
    """Both tables and the notes, as Markdown."""
    parts = [f"# gradkit race: {race['settings']['task']}"]
    for sheet in (standings(race), sensitivity(race)):
        lines = [sheet.columns, ("---",) + ("---:",) * (len(sheet.columns) - 1)]
        table = "\n".join(
            "| " + " | ".join(row) + " |" for row in [*lines, *sheet.rows]
        )
        parts += [f"## {sheet.title}", table]
    made = ", ".join(f"{name} {version}" for name, version in race["versions"].items())
    bullets = [f"- {note.replace('*', chr(92) + '*')}" for note in notes(race)]
    return "\n\n".join([*parts, "\n".join([*bullets, f"- Made with {made}."])]) + "\n"


def _non_defaults(arguments: dict[str, dict[str, Any]]) -> str:
    """Arguments that are not defaults, with their values and recipes, in words."""
    takers: dict[str, list[str]] = {}
    for recipe, values in arguments.items():
        for key, value in values.items():
            takers.setdefault(f"{key} {value:g}", []).append(recipe)
    return ", ".join(f"{pair} for {', '.join(names)}" for pair, names in takers.items())


def _standing(name: str, result: dict[str, Any]) -> tuple[str, ...]:
    best = result["rates"].index(result["best_rate"])
    runs = len(result["rates"]) * len(result["final_eval_loss"][best])
    return (
        name,
        f"{result['best_rate']:.2g}" + ("*" if result["best_at_edge"] else ""),
        _spread(result["final_eval_loss"][best]),
        _mean(result["final_train_loss"][best]),
        str(result["steps_to_adamw"] or "-"),
        f"{1e3 * result['seconds_per_step'] / runs:.1f}",
        f"{result['state_bytes'] / result['parameters']:.1f}",
    )


def _mean(losses: list[float | None]) -> str:
    finite = [x for x in losses if x is not None]
    return (
        f"{sum(finite) / len(finite):.3f}" if len(finite) == len(losses) else "diverged"
    )


def _spread(losses: list[float | None]) -> str:
    finite = [x for x in losses if x is not None]
    if len(finite) < len(losses) or len(losses) == 1:
        return _mean(losses)
    return f"{_mean(losses)} ± {(max(finite) - min(finite)) / 2:.3f}"


def version(package: str) -> str:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "from source"
