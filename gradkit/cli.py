"""The command line: `gradkit list`, `show`, `check`, `coords` and `race`."""

import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Annotated, NoReturn

from gradkit._lab.complaint import Complaint

LAB = {"typer", "rich", "flax", "orbax", "matplotlib", "sklearn"}
DEVICES = "--xla_force_host_platform_device_count"


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """Say what a user can mend in one line on stderr, and leave with exit code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in LAB:
            raise
        leave(2, f'{error.name} is not installed. Run pip install "gradkit[lab]".')
    except Complaint as complaint:
        leave(2, str(complaint))


def leave(code: int, message: str) -> NoReturn:
    """Say why on stderr, and end."""
    print(f"gradkit: {message}", file=sys.stderr)
    raise SystemExit(code)


with in_one_line():
    import typer

app = typer.Typer(
    help="Composable gradient transformations for JAX: look them up, hold your own to the "
    "laws, race recipes against each other.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command("list")
def list_methods(
    family: Annotated[
        str | None, typer.Option(help="Only this family, such as clip or recipe.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Name every method in one line."""
    with in_one_line():
        from gradkit._lab import describe

        found = [describe.describe(method.name) for method in describe.methods(family)]
    if as_json:
        print(json.dumps([one.record() for one in found], indent=1))
        return
    wide = max(len(one.method.name) for one in found)
    for one in found:
        print(f"{one.method.name:{wide}}  {one.method.family:9}  {one.summary}")


@app.command()
def show(name: Annotated[str, typer.Argument(help="A name that list gives.")]) -> None:
    """Say all about one method: equations, paper, departures, memory, needs."""
    with in_one_line():
        from gradkit._lab import describe

        print(describe.describe(name).page())


@app.command()
def check(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FACTORY",
            help="A transform or what makes one, such as optax:adamw or mine.rules:rule.",
        ),
    ],
    shapes: Annotated[
        str | None,
        typer.Option(
            help="Of the parameters: 6x4,3x5 for a method of matrices. Else two matrices, a "
            "vector and a scalar."
        ),
    ] = None,
) -> None:
    """Hold a transform to the laws; exit with 1 if it breaks any."""
    flags = os.environ.get("XLA_FLAGS", "")
    if DEVICES not in flags:  # sharding needs several, asked for before JAX starts
        os.environ["XLA_FLAGS"] = f"{flags} {DEVICES}=8".strip()
    with in_one_line():
        from gradkit import testing
        from gradkit._lab import spec as named

        table = testing.check(named.load(spec, shapes))
    print(table)
    if not table.ok:
        raise SystemExit(1)


@app.command()
def coords(
    task: Annotated[str, typer.Option(help="bytes: a transformer on text.")] = "bytes",
    widths: Annotated[
        str | None, typer.Option(help="32,64,128 if not given, 64 beside depths.")
    ] = None,
    depths: Annotated[
        str, typer.Option(help="Layers; several, to grow in depth instead.")
    ] = "2",
    parametrization: Annotated[
        str, typer.Option(help="Of sp (standard), mup, spectral (Muon), completep.")
    ] = "mup,sp",
    steps: Annotated[int, typer.Option(help="Updates, on one batch.")] = 5,
    seeds: Annotated[int, typer.Option(help="First parameters and batches.")] = 8,
    rate: Annotated[
        float | None,
        typer.Option(
            help="Learning rate; else near the smallest's best, over depths a quarter."
        ),
    ] = None,
    out: Annotated[
        pathlib.Path | None, typer.Option(help="Also draw a picture, as PNG.")
    ] = None,
    data: Annotated[
        pathlib.Path | None,
        typer.Option(help="Text, a file or folder; else Python's own source."),
    ] = None,
) -> None:
    """Check if activations keep their size, and their changes theirs, as a model grows.

    Exit with 1 if any parametrization fails: then no learning rate is right for all sizes.
    """
    with in_one_line():
        from gradkit._lab import coords as lab

        widths = widths or ("64" if "," in depths else "32,64,128")
        planned = lab.plan(task, parametrization, widths, depths, steps, seeds, rate)
        passes = lab.check(planned, lab.text_data(data), out)
    if not passes:
        raise SystemExit(1)


@app.command()
def race(
    task: Annotated[
        str, typer.Option(help="bytes: a transformer on text. digits: a small convnet.")
    ] = "bytes",
    recipes: Annotated[
        str, typer.Option(help="Names; muon@0.1 lays muon's grid around 0.1.")
    ] = "adamw,ademamix,grams,lion,muon,fira",
    steps: Annotated[int, typer.Option(help="Updates of every run.")] = 200,
    rates: Annotated[int, typer.Option(help="Learning rates for every recipe.")] = 5,
    seeds: Annotated[int, typer.Option(help="First parameters and data orders.")] = 2,
    out: Annotated[
        pathlib.Path, typer.Option(help="Folder for all that comes out.")
    ] = pathlib.Path("runs/race"),
    data: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="Text for bytes, a file or folder; else Python's own source."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the race in --out stopped.")
    ] = False,
    save_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints; else a fifth of all.")
    ] = None,
) -> None:
    """Train one model a recipe, each at its best learning rate, and compare them.

    All rates and seeds of a recipe run as one compiled program, on the same data.
    """
    with in_one_line():
        from gradkit._lab import plan, start
        from gradkit._lab.race import Stopped

        planned = plan.plan(recipes, steps, rates, seeds, save_every)
        try:
            start.start(start.task(task, data), planned, out, resume)
        except Stopped as stopped:
            leave(130, f"stopped at {stopped}. The same command with --resume goes on.")
        except OSError as error:
            leave(1, f"{error}. What was saved is safe: --resume goes on.")


if __name__ == "__main__":
    app()
