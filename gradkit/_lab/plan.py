"""The plan of a race: recipes, rates, steps and seeds."""

import inspect
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

import gradkit as gk
from gradkit import catalogue
from gradkit._lab import memory, program
from gradkit._lab.complaint import Complaint, pick
from gradkit._lab.tasks import Task

MOST = 400  # rates over two decades that differ in three digits


class Plan(NamedTuple):
    """Recipes with their rates, steps and seeds."""

    rates: dict[str, list[float]]  # the learning rates of each recipe
    steps: int
    seeds: int
    save_every: int  # steps between checkpoints


def plan(
    recipes: str, steps: int, rates: int, seeds: int, save_every: int | None = None
) -> Plan:
    """Parse `adamw,muon@0.02` and the counts; the grid of muon is centred at 0.02."""
    every = -(-steps // 5) if save_every is None else save_every
    counts = {"steps": steps, "rates": rates, "seeds": seeds, "save-every": every}
    for name, count in counts.items():
        if count < 1:
            raise Complaint(f"--{name} must be at least 1, got {count}.")
    if rates > MOST:
        raise Complaint(f"--rates must be at most {MOST}, got {rates}.")
    names = sorted(
        m.name for m in catalogue.METHODS if m.kind == "recipe" and hasattr(gk, m.name)
    )
    grids = {}
    for entry in recipes.split(","):
        typed, at, rate = entry.strip().partition("@")
        everything = "gradkit list --family recipe names them all."
        name = pick("recipe", typed, names, everything)
        if name in grids:
            raise Complaint(f"recipe {name!r} is named twice. Name it once.")
        grids[name] = program.grid(_rate(entry, rate) if at else _centre(name), rates)
    return Plan(grids, steps, seeds, every)


def afford(task: Task, plan: Plan) -> None:
    """Refuse a plan that exceeds memory: parameters, losses, and the order of examples."""
    params = jax.eval_shape(task.init, jax.random.key(0))
    size = sum(math.prod(p.shape) for p in jax.tree.leaves(params))
    rates = max(map(len, plan.rates.values()))
    order = 20 * plan.steps * plan.seeds * task.batch
    losses = 24 * plan.steps * plan.seeds * rates
    models = memory.RUN * size * plan.seeds * rates
    memory.require(
        f"--steps {plan.steps}, --rates {rates} and --seeds {plan.seeds}",
        order + losses + models,
    )


def settings(task: Task, plan: Plan) -> dict[str, Any]:
    """The settings that determine the numbers of a race, as JSON."""
    return {
        "task": task.name,
        "summary": task.summary,
        "data": task.fingerprint(),
        "rates": plan.rates,
        "arguments": chosen(task, plan),
        "steps": plan.steps,
        "seeds": plan.seeds,
    }


def chosen(task: Task, plan: Plan) -> dict[str, dict[str, Any]]:
    """For each recipe, the arguments of the task that it takes, in place of its defaults."""
    return {
        name: {key: x for key, x in task.arguments.items() if key in _parameters(name)}
        for name in plan.rates
    }


def _centre(name: str) -> float:
    """Ten times the default rate, which suits larger models and longer runs."""
    return 10 * _parameters(name)["learning_rate"].default


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(getattr(gk, name)).parameters


def _rate(entry: str, rate: str) -> float:
    try:
        value = float(rate)
    except ValueError:
        value = 0.0
    low, high = program.RATES
    if not low <= value <= high:
        raise Complaint(
            f"{entry!r} must name a rate from {low:g} to {high:g}, as adamw@3e-3 does."
        )
    return value
