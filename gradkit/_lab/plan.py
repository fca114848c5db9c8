"""Who runs in a race and how long, read from what was typed."""

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

MOST = 400  # rates over two decades of which no two have the same three digits


class Plan(NamedTuple):
    """Who runs, and how long."""

    rates: dict[str, list[float]]  # the learning rates of each recipe
    steps: int
    seeds: int
    save_every: int  # steps between checkpoints


def plan(
    recipes: str, steps: int, rates: int, seeds: int, save_every: int | None = None
) -> Plan:
    """A plan from `adamw,muon@0.02`, where the grid of muon is laid around 0.02."""
    every = -(-steps // 5) if save_every is None else save_every
    counts = {"steps": steps, "rates": rates, "seeds": seeds, "save-every": every}
    for name, count in counts.items():
        if count < 1:
            raise Complaint(f"--{name} must be at least 1, got {count}.")
    if rates > MOST:
        raise Complaint(f"--rates must be at most {MOST}, got {rates}.")
    known = sorted(
        m.name for m in catalogue.METHODS if m.kind == "recipe" and hasattr(gk, m.name)
    )
    grids = {}
    for entrant in recipes.split(","):
        typed, at, rate = entrant.strip().partition("@")
        everything = "gradkit list --family recipe names them all."
        name = pick("recipe", typed, known, everything)
        if name in grids:
            raise Complaint(f"recipe {name!r} is named twice. Name it once.")
        grids[name] = program.grid(_rate(entrant, rate) if at else _centre(name), rates)
    return Plan(grids, steps, seeds, every)


def afford(task: Task, plan: Plan) -> None:
    """Refuse what would not fit into memory: parameters, losses, and the order of examples."""
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
    """All that the numbers of a race depend on, as JSON."""
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
    """What is not left to a recipe's defaults: the arguments of the task that it takes."""
    return {
        name: {key: x for key, x in task.arguments.items() if key in _parameters(name)}
        for name in plan.rates
    }


def _centre(name: str) -> float:
    """Ten times the default, which is made for larger models and longer runs."""
    return 10 * _parameters(name)["learning_rate"].default


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(getattr(gk, name)).parameters


def _rate(entrant: str, rate: str) -> float:
    try:
        value = float(rate)
    except ValueError:
        value = 0.0
    low, high = program.RATES
    if not low <= value <= high:
        raise Complaint(
            f"{entrant!r} must name a rate from {low:g} to {high:g}, as adamw@3e-3 does."
        )
    return value
