"""Does the best learning rate of a small transformer stay the best one of a large one?

On real bytes, in the standard parametrization (sp) and beside it those that promise it: muP over
the width, CompleteP over the depth. Every size is trained at all rates from all seeds as one
program, small sizes first. Its losses are written when they are there: a run that was stopped,
or had no time left, goes on where it was when started again.

    python benchmarks/mup_transfer.py --minutes 25
"""

import argparse
import json
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

import gradkit as gk
from gradkit._lab import checkpoints, coords, plots, report
from gradkit._lab.coords import Size, Start

QUESTIONS = {"width": ("mup", "sp"), "layers": ("completep", "sp")}
ZEROS = coords.BRANCHES  # blocks begin as the identity, at every size the same model
WORDS = {"width": "width", "layers": "depth"}


class Job(NamedTuple):
    """One size in one parametrization, at all rates from all seeds."""

    over: str  # the field of `Size` that changes
    name: str  # of the parametrization
    size: Size

    @property
    def key(self) -> str:
        """Its name in the record."""
        return f"{self.over}/{self.name}/{getattr(self.size, self.over)}"


def jobs(base: Size, widths: list[int], depths: list[int]) -> list[Job]:
    """All of them, the cheapest first, both parametrizations of one size together."""
    sizes = {
        "width": [base._replace(width=width) for width in widths],
        "layers": [base._replace(layers=layers) for layers in depths],
    }
    found = [
        Job(over, name, size)
        for over, names in QUESTIONS.items()
        for size in sizes[over]
        for name in names
    ]
    return sorted(found, key=lambda job: flops(job.size))


def flops(size: Size) -> float:
    """Of one token in one step, about: six a weight that multiplies."""
    return 6 * (12 * size.layers * size.width**2 + 256 * size.width)


def run(job: Job, base: Size, data: jax.Array, setting: dict[str, Any]) -> Any:
    """Final losses, `[rates, seeds]`, None where diverged."""
    steps = setting["steps"]

    def batch(key: jax.Array) -> jax.Array:
        return coords.windows(data, setting["context"], setting["batch"], key)

    def schedule(rate: Any) -> Any:
        return gk.schedule_by_linear_decay(rate, steps=steps, warmup=steps // 10)

    def make(n: int) -> gk.Experiment:
        size = base._replace(**{job.over: n})
        return coords.experiment(job.name, base, size, batch, Start(ZEROS), schedule)

    n = getattr(job.size, job.over)
    found = gk.sweep_transfer(make, [n], setting["rates"], steps, setting["seeds"])
    return report.numbers(found.losses[n])


def gather(record: dict[str, Any]) -> dict[str, dict[str, gk.SweepResult]]:
    """By what changes and by parametrization, what was found so far."""
    found: dict[str, dict[str, gk.SweepResult]] = {}
    for over, names in QUESTIONS.items():
        for name in names:
            begin = f"{over}/{name}/"
            losses = {
                int(key.removeprefix(begin)): np.array(one["losses"], np.float64)
                for key, one in record["runs"].items()
                if key.startswith(begin)
            }
            if losses:
                rates = tuple(record["settings"]["rates"])
                ordered = dict(sorted(losses.items()))
                found.setdefault(over, {})[name] = gk.SweepResult(rates, ordered)
    return found


def write(out: pathlib.Path, record: dict[str, Any]) -> str:
    """The tables, also as Markdown beside the pictures."""
    setting = record["settings"]
    grid = setting["rates"]
    parts = [
        "# Does the best learning rate transfer?",
        f"A decoder-only transformer on bytes of Python's source, base {setting['base']}; "
        f"{setting['steps']} steps of {setting['batch']} x {setting['context']} bytes, AdamW "
        "without weight decay, a tenth of warm-up, then linear decay to zero. At the base size "
        "all parametrizations are the same run, and at every size blocks begin as the identity: "
        f"what matches `{setting['zeros']}` starts at zero. "
        f"{len(grid)} rates from {grid[0]:.2g} to {grid[-1]:.2g}, {setting['seeds']} seeds. "
        "The loss is the training loss in nats, mean of the last tenth of all steps; batches "
        "are fresh and the same for all. Shifts are from the first size; brackets are 95 % "
        "over bootstrapped seeds, rough for so few.",
    ]
    for over, found in gather(record).items():
        for name, one in found.items():
            apart = f"best rates {one.shift:.2f} doublings apart"
            parts += [f"## {name} over the {WORDS[over]}: {apart}"]
            parts += [f"```\n{one.table()}\n```"]
        picture = f"mup_transfer_{WORDS[over]}.png"
        checkpoints.write(out / picture, plots.transfers(found, WORDS[over]))
        parts += [f"![loss over rate by {WORDS[over]}]({picture})"]
    made = ", ".join(
        f"{name} {version}" for name, version in record["versions"].items()
    )
    spent = sum(one["cpu_seconds"] for one in record["runs"].values()) / 60
    parts += [f"{spent:.0f} minutes of one CPU core in all. Made with {made}."]
    text = "\n\n".join(parts) + "\n"
    checkpoints.write(out / "mup_transfer.md", text)
    return text


def main() -> None:
    """Run what is not yet run, as far as the time goes; print what is known."""
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=25, help="no job that ends later"
    )
    parser.add_argument("--widths", type=numbers, default=[32, 64, 128, 256, 512])
    parser.add_argument("--depths", type=numbers, default=[2, 4, 8, 16])
    parser.add_argument("--base", type=numbers, default=[64, 2], help="width,layers")
    parser.add_argument(
        "--rates", type=numbers, default=[-10, -3], help="log2, both ends"
    )
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--context", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    here = pathlib.Path(__file__).parent / "results"
    parser.add_argument("--out", type=pathlib.Path, default=here)
    args = parser.parse_args()
    start = time.monotonic()
    base = Size(*args.base)
    low, high = args.rates
    setting = {
        "base": base._asdict(),
        "rates": [2.0**k for k in range(low, high + 1)],
        "zeros": ZEROS,
        **{
            name: getattr(args, name) for name in ("steps", "batch", "context", "seeds")
        },
    }
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "mup_transfer.json"
    record = {"settings": setting, "versions": report.versions(), "runs": {}}
    if path.exists():
        record = json.loads(path.read_text())
        if record["settings"] != setting:
            raise SystemExit(
                f"{path} has other settings. Move it, or choose another --out."
            )
    data = coords.text_data(None)
    for job in jobs(base, args.widths, args.depths):
        if job.key in record["runs"]:
            continue
        cost = flops(job.size) * args.batch * args.context * args.steps
        cost *= len(setting["rates"]) * args.seeds
        speed = max([8e9, *(one["speed"] for one in record["runs"].values())])
        expected = 10 * job.size.layers + cost / speed  # to compile, and to run
        if expected > 60 * args.minutes - (time.monotonic() - start):
            print(
                f"{job.key}: about {expected / 60:.1f} minutes, no time left",
                flush=True,
            )
            continue
        begun, used = time.monotonic(), time.process_time()
        losses = run(job, base, data, setting)
        seconds = time.monotonic() - begun
        found = {
            "losses": losses,
            "cpu_seconds": time.process_time() - used,
            "speed": cost / seconds,
        }
        record["runs"][job.key] = found
        checkpoints.write_json(path, record)
        print(
            f"{job.key}: {seconds:.0f} s, {cost / seconds / 1e9:.1f} GFLOP/s",
            flush=True,
        )
    if record["runs"]:
        print("\n" + write(args.out, record))


if __name__ == "__main__":
    main()
