"""How near do methods without a learning rate come to tuned AdamW?

Each method has a factor of its step, 1 or what its paper has, and each is run constant and with warm-up and
linear decay. Three numbers are reported: as published (its own factor, constant), with the one factor and
schedule that is best on all tasks together, and tuned for the task. AdamW is run over rates in the same
way. Choices are by the validation loss of one seed, the numbers are test losses of other seeds. Where
a method says that an average of the parameters is what to evaluate, that is what is evaluated.

    python benchmarks/rate_free.py --out benchmarks/results/rate_free.md
"""

import argparse
import functools
import itertools
import pathlib
import platform
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import gradkit as gk
from gradkit._lab import tasks

SCHEDULES = ["constant", "linear"]
TUNING_SEED = 1_000_000
QUANTILE = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # Student's t, 97.5 %, by seeds


class Entry(NamedTuple):
    """A method, its own rate or factor, and those that are tried."""

    make: Callable[[Any], Any]  # rate, a number or a schedule -> transform
    own: float
    rates: Sequence[float]


def averaged(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The method, evaluated at the average that DoG's paper advises."""
    return lambda rate: gk.chain(step(rate), gk.average_params_by_polynomial())


def factor(make: Callable[[Any], Any], own: float = 1.0) -> Entry:
    """A method whose rate is a factor, tried at a third and at three times its own."""
    return Entry(make, own, [own / 3, own, 3 * own])


ENTRIES = {
    "adamw": Entry(gk.adamw, 1e-3, [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]),
    "prodigy": factor(gk.step_by_prodigy),
    "schedule_free_adamw": factor(gk.schedule_free_adamw, 0.0025),
    "momo_adam": factor(gk.step_by_momo_adam, 0.01),
    "momo": factor(gk.step_by_momo),
    "dog": factor(averaged(gk.step_by_dog)),
    "layer_dog": factor(averaged(gk.step_by_layer_dog)),
    "u_dog": factor(gk.step_by_u_dog),
    "sania_adam": factor(gk.step_by_sania_adam),
    "sania_adagrad": factor(gk.step_by_sania_adagrad),
    "polyak": factor(gk.step_by_polyak),
}


class Runs(NamedTuple):
    """The runs of one method on one task."""

    entry: Entry
    task: gk.Task
    steps: int

    def losses(self, rates: Any, schedules: Any, seeds: Any, held_out: Any) -> Any:
        """Held-out losses, `[rates * schedules, seeds]`; inf where a run diverged."""

        def make(learning_rate: Any, schedule: str) -> Any:
            if schedule == "linear":
                learning_rate = gk.schedule_by_linear_decay(
                    learning_rate, steps=self.steps, warmup=self.steps // 10
                )
            return self.entry.make(learning_rate)

        found = gk.sweep(
            make,
            {"learning_rate": rates, "schedule": schedules},
            self.task.loss,
            self.task.data,
            self.steps,
            init=self.task.init,
            held_out=held_out,
            seeds=seeds,
        )
        return np.where(np.isfinite(found.held_out), found.held_out, np.inf)

    def tried(self) -> np.ndarray:
        """The validation loss of each point, `[points]`."""
        seeds = [TUNING_SEED]
        return self.losses([*self.entry.rates], SCHEDULES, seeds, self.task.validation)[
            :, 0
        ]

    def cells(self, rate: float, schedule: str, seeds: int) -> str:
        """The test loss at this point and its interval, as two cells of the table."""
        ends = self.losses([rate], [schedule], seeds, self.task.test)[0]
        half = QUANTILE[seeds] * ends.std(ddof=1) / seeds**0.5
        return f"{ends.mean():.4f} ± {half:.4f} | {rate:.3g}, {schedule}"


def rows(method: str, built: list[gk.Task], steps: int, seeds: int) -> list[str]:
    """The lines of one method: at its own factor, at one for all tasks, at one for each."""
    entry = ENTRIES[method]
    points = [*itertools.product(entry.rates, SCHEDULES)]
    runs = [Runs(entry, task, steps) for task in built]
    losses = np.array([x.tried() for x in runs])
    worse = np.log(losses / losses.min(axis=1, keepdims=True))
    chosen = {
        "default": [points.index((entry.own, "constant"))] * len(built),
        "all tasks": [int(worse.mean(axis=0).argmin())] * len(built),
        "the task": losses.argmin(axis=1).tolist(),
    }
    cells = functools.cache(lambda k, i: runs[k].cells(*points[i], seeds))
    return [
        f"| `{method}` | {how} | {' | '.join(map(cells, range(len(built)), picks))} |"
        for how, picks in chosen.items()
    ]


def main() -> None:
    """Tune, choose, report, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default="bytes,digits", help="by commas")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3, choices=QUANTILE)
    parser.add_argument("--only", default=",".join(ENTRIES), help="methods, by commas")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    built = [tasks.named(name) for name in args.tasks.split(",")]
    lines = [
        f"Test losses after {args.steps} steps, {args.seeds} seeds, 95 % intervals of Student's t.",
        f"jax {jax.__version__}, optax {optax.__version__}, Python {platform.python_version()}, "
        f"{jax.devices()[0].device_kind}.",
        *(f"{task.name}: {task.summary}." for task in built),
        "",
        f"| method | chosen by | {' | '.join(f'{t.name} | at' for t in built)} |",
        "|---" * (2 + 2 * len(built)) + "|",
    ]
    print("\n".join(lines), flush=True)
    for method in args.only.split(","):
        lines += rows(method, built, args.steps, args.seeds)
        print("\n".join(lines[-3:]), flush=True)
    if args.out:
        args.out.write_text("\n".join(["# Without a learning rate", "", *lines, ""]))


if __name__ == "__main__":
    main()
