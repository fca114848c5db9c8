"""The plan of a race: what each recipe is tuned in, from the words of the command line."""

import ast
import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

import gradkit as gk
from gradkit import catalogue
from gradkit._lab import memory, spec, tasks
from gradkit._lab.complaint import Complaint, pick

RATES = 1e-36, 1e36  # learning rates whose whole grid is in the range of float32
MOST = 100_000  # trials, seeds
RATE = "learning_rate"
TUNED = {  # what --tune names, with a range that suits most recipes
    RATE: None,  # from a third of the default to a hundred times it
    "weight_decay": gk.LogUniform(1e-3, 1.0),
    "b1": gk.Uniform(0.8, 0.98),
    "b2": [0.9, 0.95, 0.98, 0.99, 0.995, 0.999],
    "eps": gk.LogUniform(1e-12, 1e-4),
    "momentum": gk.Uniform(0.8, 0.98),
    "adam_lr_ratio": gk.LogUniform(0.02, 2.0),
}
WORDS = {"rate": RATE, "decay": "weight_decay", "ratio": "adam_lr_ratio"}
SCHEDULES = "linear", "cosine", "wsd", "sqrt", "constant"


class Plan(NamedTuple):
    """All of a race but its task."""

    calls: dict[str, "Call"]
    steps: int
    trials: int
    tuning_seeds: int
    seeds: int
    schedule: Callable[[Any, int], Any]
    shape: dict[str, Any]  # of the schedule, in words

    def entries(self, task: gk.Task) -> dict[str, gk.RaceEntry]:
        """The recipes, each with the arguments of the task that it takes and does not tune."""
        return {name: call.entry(task) for name, call in self.calls.items()}


class Call(NamedTuple):
    """A recipe as it was typed."""

    name: str
    make: Callable[..., Any]
    space: dict[str, Any]
    fixed: dict[str, Any]

    def entry(self, task: gk.Task) -> gk.RaceEntry:
        """The recipe on this task."""
        taken = inspect.signature(self.make).parameters
        given = {k: x for k, x in task.arguments.items() if k in taken}
        fixed = {k: x for k, x in (given | self.fixed).items() if k not in self.space}
        one = {
            k: x[0] for k, x in self.space.items() if not is_range(x) and len(x) == 1
        }
        said = ", ".join(f"{k}={x!r}" for k, x in (one | fixed).items())
        make = functools.partial(self.make, **fixed)
        return gk.RaceEntry(make, self.space, f"{self.name}({said})")


def plan(
    recipes: str,
    *,
    steps: int,
    trials: int = 8,
    tuning_seeds: int = 1,
    seeds: int = 3,
    schedule: str = "linear",
    warmup: float = 0.1,
    cooldown: float = 0.2,
    tune: str = "rate",
) -> Plan:
    """Parse `adamw(b2=0.95|0.99),muon(adam_lr_ratio=0.05..1)@0.02,mine:make` and the counts."""
    counts = {
        "steps": steps,
        "trials": trials,
        "tuning-seeds": tuning_seeds,
        "seeds": seeds,
    }
    for name, count in counts.items():
        if count < 1:
            raise Complaint(f"--{name} must be at least 1, got {count}.")
        if count > MOST and name != "steps":
            raise Complaint(f"--{name} must be at most {MOST}, got {count}.")
    for name, share in {"warmup": warmup, "cooldown": cooldown}.items():
        if not 0 <= share < 1:
            raise Complaint(
                f"--{name} must be a part of all steps, in [0, 1), got {share}."
            )
    kind = pick("schedule", schedule, SCHEDULES)
    for_all = [_word(word) for word in tune.split(",")]
    calls: dict[str, Call] = {}
    typed = [text.strip() for text in _split(recipes)]
    heads = [re.split("[(@]", text, maxsplit=1)[0].strip() for text in typed]
    for text, head in zip(typed, heads):
        alone = [other.lower() for other in heads].count(head.lower()) == 1
        known = head if ":" in head else head.lower()
        name = known if alone else known + text.removeprefix(head)
        if name in calls:
            raise Complaint(f"recipe {text!r} is named twice. Name it once.")
        calls[name] = _call(text, for_all)
    shape = {"kind": kind, "warmup": warmup, "cooldown": cooldown}
    made = functools.partial(_schedule, kind, warmup, cooldown)
    return Plan(calls, steps, trials, tuning_seeds, seeds, made, shape)


def afford(task: gk.Task, plan: Plan) -> None:
    """Refuse a plan that exceeds memory: of one run, and the losses of all."""
    params = jax.eval_shape(task.init, jax.random.key(0))
    size = sum(math.prod(p.shape) for p in jax.tree.leaves(params))
    runs = max(plan.trials * plan.tuning_seeds, plan.seeds)
    memory.require(
        f"--steps {plan.steps}, --trials {plan.trials} and --seeds {plan.seeds}",
        16 * plan.steps + 8 * plan.steps * runs + memory.RUN * size,
    )


def settings(task: gk.Task, plan: Plan) -> dict[str, Any]:
    """The settings that determine the numbers of a race, as JSON."""
    return {
        "task": task.name,
        "summary": task.summary,
        "data": tasks.fingerprint(task),
        "recipes": {
            name: {
                "fixed": entry.about,
                "tuned": {k: repr(x) for k, x in entry.space.items()},
            }
            for name, entry in plan.entries(task).items()
        },
        "schedule": plan.shape,
        "steps": plan.steps,
        "trials": plan.trials,
        "tuning_seeds": plan.tuning_seeds,
        "seeds": plan.seeds,
    }


def _call(text: str, for_all: Sequence[str]) -> Call:
    """The recipe that a call such as `muon(adam_lr_ratio=0.05..1)@0.02` means."""
    at = "@" in text.rpartition(")")[2]  # behind the brackets, if there are any
    call, _, rate = text.rpartition("@") if at else (text, "", "")
    head, opening, rest = call.partition("(")
    head = head.strip()
    make = _factory(head)
    taken = _taken(head, make)
    if RATE not in taken and not _takes_all(taken):
        raise Complaint(f"{head!r} must take {RATE}, as gk.adamw does.")
    space, fixed = _values(text, rest, opening), {}
    for name in [
        k for k, x in space.items() if not (is_range(x) or isinstance(x, list))
    ]:
        fixed[name] = space.pop(name)
    for name in {*space, *fixed} - {*taken}:
        if not _takes_all(taken):
            named = ", ".join(k for k in taken)
            raise Complaint(f"{head} takes no {name!r}, in {text!r}. It takes {named}.")
    for name in for_all:
        if name in taken and name not in {*space, *fixed} and TUNED[name] is not None:
            space[name] = TUNED[name]
    if at:
        if RATE in {*space, *fixed}:
            raise Complaint(
                f"{RATE!r} is there twice in {text!r}, in brackets and behind @. "
                "Name it once."
            )
        space[RATE] = _around(text, rate)
    elif RATE in fixed:
        space[RATE] = [fixed.pop(RATE)]
        if not isinstance(space[RATE][0], int | float):
            raise Complaint(
                f"{RATE} in {text!r} must be a number, got {space[RATE][0]!r}."
            )
    return Call(head, make, space, fixed)


def _factory(name: str) -> Callable[..., Any]:
    if ":" in name:
        make = spec.find(name)
        if not callable(make):
            raise Complaint(
                f"{name!r} must be a function of learning_rate, got {make!r}."
            )
        return make
    known = [m.name for m in catalogue.METHODS if m.kind == "recipe"]
    everything = (
        "gradkit list --family recipe names them all; another's is module:factory."
    )
    return getattr(gk, pick("recipe", name, sorted(known), everything))


def _values(text: str, rest: str, opening: str) -> dict[str, Any]:
    """The arguments of a call: values, `a|b` one of several, `low..high` a range."""
    if not opening:
        return {}
    if not rest.rstrip().endswith(")"):
        raise Complaint(
            f"{text!r} must close its bracket, as adamw(b2=0.95|0.99) does."
        )
    values: dict[str, Any] = {}
    for part in _split(rest.rstrip()[:-1]):
        if not part.strip():
            continue
        name, equals, written = (x.strip() for x in part.partition("="))
        if not equals or not name.isidentifier() or not written:
            raise Complaint(
                f"{part.strip()!r} in {text!r} must read name=0.9, name=0.9|0.99 or "
                "name=0.05..1."
            )
        if name in values:
            raise Complaint(f"{name!r} is there twice in {text!r}. Name it once.")
        low, dots, high = written.partition("..")
        if dots:
            values[name] = _range(text, name, low, high)
        elif "|" in written:
            values[name] = [_literal(text, x) for x in written.split("|")]
        else:
            values[name] = _literal(text, written)
    return values


def _range(text: str, name: str, low: str, high: str) -> Any:
    try:
        ends = float(low), float(high)
    except ValueError:
        ends = math.nan, math.nan
    if not -math.inf < ends[0] < ends[1] < math.inf:
        raise Complaint(
            f"{name}={low}..{high} in {text!r} must go from a number to a larger one."
        )
    return gk.LogUniform(*ends) if ends[0] > 0 else gk.Uniform(*ends)


def _literal(text: str, written: str) -> Any:
    try:
        return ast.literal_eval(written.strip())
    except (SyntaxError, ValueError):
        raise Complaint(
            f"{written.strip()!r} in {text!r} must be a number, True, False or a quoted string."
        ) from None


def is_range(x: Any) -> bool:
    """Whether this is a range of numbers."""
    return isinstance(x, gk.LogUniform | gk.Uniform)


def _split(text: str) -> list[str]:
    """Parts between the commas that are in no bracket."""
    parts, depth = [""], 0
    for c in text:
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def _word(word: str) -> str:
    name = WORDS.get(word.strip().lower(), word.strip().lower())
    return name if name in TUNED else pick("hyperparameter", word, [*WORDS, *TUNED])


def _taken(head: str, make: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(make).parameters
    except (TypeError, ValueError):  # a class of C
        raise Complaint(f"{head!r} must say what it takes, as gk.adamw does.") from None


def _takes_all(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _around(text: str, rate: str) -> gk.LogUniform:
    """The two decades around a rate."""
    try:
        value = float(rate)
    except ValueError:
        value = 0.0
    low, high = RATES
    if not low <= value <= high:
        raise Complaint(
            f"{text!r} must name a rate from {low:g} to {high:g}, as adamw@3e-3 does."
        )
    return gk.LogUniform(value / 10, value * 10)


def _schedule(kind: str, warmup: float, cooldown: float, rate: Any, steps: int) -> Any:
    """The schedule of a run with this peak rate; parts of all steps become steps."""
    rise = min(int(warmup * steps), steps - 1)
    fall = max(1, min(int(cooldown * steps), steps - rise))
    if kind == "cosine":
        return gk.schedule_by_cosine(rate, steps=steps, warmup=rise)
    if kind == "wsd":
        return gk.schedule_by_warmup_stable_decay(
            rate, steps=steps, warmup=rise, cooldown=fall
        )
    if kind == "sqrt":
        return gk.schedule_by_sqrt_cooldown(
            rate, steps=steps, warmup=rise, cooldown=fall
        )
    if kind == "constant":
        return gk.then(lambda count: rate * (count + 1) / max(rise, 1), rise, rate)
    return gk.schedule_by_linear_decay(rate, steps=steps, warmup=rise)
