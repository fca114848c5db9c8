"""The command line: `gradkit list`, `show`, `describe`, `check`, `coords`, `race` and
`bench`.

Exit codes: 0, success; 1, a law or a check fails; 2, the request cannot be done; 130, Ctrl-C;
128 and its number, another signal.
"""

import contextlib
import io
import json
import os
import pathlib
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

from gradkit._lab.complaint import Complaint, printable

LAB = {"typer", "rich", "flax", "orbax", "matplotlib", "sklearn"}
DEVICES = "--xla_force_host_platform_device_count"


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """Report errors that the user can fix in one line on stderr, and exit with code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in LAB:
            raise
        leave(2, f'{error.name} is not installed. Run pip install "gradkit[lab]".')
    except Complaint as complaint:
        leave(2, str(complaint))
    except KeyboardInterrupt:
        leave(130, "stopped.")
    except BrokenPipeError:  # as of "gradkit list | head"
        discard_output()
        raise SystemExit(141) from None
    except OSError as error:
        discard_output()
        leave(2, f"cannot read or write: {error}.")
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
            message = str(error).partition("\n")[0].rstrip(".")
            leave(2, f"out of memory: {message}. Ask for less.")
        mistyped = getattr(error, "format_message", None)  # of click's errors
        if mistyped is None:
            raise
        message = mistyped().rstrip(".")
        command = getattr(getattr(error, "ctx", None), "command_path", "gradkit")
        end = "" if message.endswith("?") else "."
        leave(2, f"{message}{end} See {command} --help.")


def leave(code: int, message: str) -> NoReturn:
    """Print the message on stderr, and exit with the code."""
    print(f"gradkit: {printable(message)}", file=sys.stderr)
    raise SystemExit(code)


def discard_output() -> None:
    """Redirect stdout to the null device, as Python flushes it at exit and would fail again."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


with in_one_line():
    import typer
    import typer.core


class Commands(typer.core.TyperGroup):
    """A command group whose errors are one line each."""

    def main(self, args: Any = None, **extra: Any) -> NoReturn:
        """Run the command, flush its output, and exit with its code."""
        del extra
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # of ASCII, say, without Greek
                stream.reconfigure(errors="backslashreplace")
        typed = sys.argv[1:] if args is None else list(args)
        with in_one_line():
            try:
                with self.make_context("gradkit", typed) as ctx:
                    self.invoke(ctx)
            except typer.Exit as ended:
                raise SystemExit(ended.exit_code) from None
            finally:
                if sys.stdout is not None:  # it is None if closed
                    sys.stdout.flush()
        raise SystemExit(0)


def path(typed: str) -> pathlib.Path:
    """The typed path; an empty one, as from an unset shell variable, is an error."""
    if not typed:
        raise typer.BadParameter("a path must be given, got nothing")
    return pathlib.Path(typed)


app = typer.Typer(
    cls=Commands,
    help="Composable gradient transformations for JAX: look them up, hold your own to the "
    "laws, race recipes against each other. Exit codes: 1, a law or a check fails; 2, what "
    "was asked for cannot be done.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def say_version(asked: bool) -> None:
    """Print the installed version, and exit."""
    if asked:
        from gradkit._lab.report import version

        print(f"gradkit {version('gradkit')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def every(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=say_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options of all commands; without a command, print the help."""
    del version
    if ctx.invoked_subcommand is None:
        print(ctx.get_help(), end="")
        raise typer.Exit(2)


TaskName = Annotated[
    str,
    typer.Option(
        help="bytes, digits, rnn, vit, autoencoder, lstsq, or your own module:task."
    ),
]
Recipes = Annotated[
    str, typer.Option(help="Names or calls; muon@0.1 tunes its rate around 0.1.")
]
Size = Annotated[
    int | None, typer.Option(help="Of the model or batch; else the task's own.")
]
Text = Annotated[
    pathlib.Path | None,
    typer.Option(
        parser=path,
        help="Text for bytes and rnn, a file or folder; else Python's own source.",
    ),
]


@app.command("list")
def list_methods(
    words: Annotated[
        str | None,
        typer.Argument(
            help="What a method is called or does, such as AGC or low-rank."
        ),
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="Only this family, such as clip or recipe.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what every method does in one line, or only the methods that match the words."""
    from gradkit._lab import describe

    matches = [describe.describe(method.name) for method in describe.methods(family)]
    if words is not None:
        matches = [entry for entry in matches if entry.says(words)]
        matches = matches or [describe.describe(words)]
    if as_json:
        print(json.dumps([entry.record() for entry in matches], indent=1))
        return
    wide = max(len(entry.method.name) for entry in matches)
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for entry in matches:
        line = f"{entry.method.name:{wide}}  {entry.line}"
        below = " " * (wide + 2)
        print(textwrap.fill(line, room, subsequent_indent=below) if room else line)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A name that list gives, what a method is known as, subspace.project, "
            "batch_axes or another word of the glossary, or glossary."
        ),
    ],
) -> None:
    """Say all about one method: equations, arguments, paper, departures, memory."""
    from gradkit._lab import describe

    print(describe.page(name))


@app.command("describe")
def describe_parts(
    spec: Annotated[
        str,
        typer.Argument(
            metavar="CALL",
            help="A method or recipe with its arguments, numbers and strings, such as "
            "'muon(0.02)' or 'galore(1e-2, rank=64)'; also 'optax:adamw(1e-3)'.",
        ),
    ],
    shapes: Annotated[
        str, typer.Option(help="Of float32 parameters: 1024x1024,1024, named or not.")
    ] = "kernel=1024x1024,bias=1024",
) -> None:
    """Say what each part of a transform costs: bytes of state, flops, time to compile.

    Nothing is run, so models larger than memory will do. In Python the same is
    gradkit.describe.

    Example: gradkit describe 'muon(0.02)' --shapes kernel=4096x4096,bias=4096
    """
    from gradkit._lab import costs

    costs.show(spec, shapes)


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
    params: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:TREE",
            help="Instead of shapes: parameters of your own, or what makes them, such as "
            "mine.model:params. Keep them small.",
        ),
    ] = None,
) -> None:
    """Hold a transform to the laws; exit with 1 if it breaks any.

    In Python the same is gradkit.testing.check.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if DEVICES not in flags:  # sharding needs several, asked for before JAX starts
        os.environ["XLA_FLAGS"] = f"{flags} {DEVICES}=8".strip()
    import jax

    from gradkit import testing
    from gradkit._lab import spec as named

    if (
        "JAX_LOGGING_LEVEL" not in os.environ
    ):  # XLA's advice on tiny shapes helps nobody
        jax.config.update("jax_logging_level", "ERROR")
    table = testing.check(named.load(spec, shapes, params))
    print(table)
    if not table.ok:
        raise SystemExit(1)


@app.command()
def coords(
    task: Annotated[str, typer.Option(help="bytes: a transformer on text.")] = "bytes",
    widths: Annotated[
        str | None, typer.Option(help="64,128,256 if not given, 64 beside depths.")
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
        pathlib.Path | None,
        typer.Option(parser=path, help="Also draw a picture, as PNG."),
    ] = None,
    data: Annotated[
        pathlib.Path | None,
        typer.Option(
            parser=path, help="Text, a file or folder; else Python's own source."
        ),
    ] = None,
) -> None:
    """Check if activations keep their size, and their changes theirs, as a model grows.

    Exit with 1 if any parametrization fails: then no learning rate is right for all sizes.
    """
    from gradkit._lab import coords as lab

    if widths is None:
        widths = "64" if "," in depths else "64,128,256"
    planned = lab.plan(task, parametrization, widths, depths, steps, seeds, rate)
    if not lab.check(planned, lab.text_data(data, out), out):
        raise SystemExit(1)


@app.command()
def race(
    task: TaskName = "bytes",
    recipes: Recipes = "adamw,ademamix,grams,lion,muon,fira",
    steps: Annotated[int, typer.Option(help="Updates of every run.")] = 200,
    trials: Annotated[int, typer.Option(help="Points to tune each recipe by.")] = 5,
    tuning_seeds: Annotated[int, typer.Option(help="Runs of each of them.")] = 1,
    seeds: Annotated[int, typer.Option(help="Other runs, of the best one.")] = 3,
    tune: Annotated[
        str,
        typer.Option(
            help="What is tuned in all recipes that take it: rate, decay, b1, b2, eps, ratio."
        ),
    ] = "rate",
    schedule: Annotated[
        str, typer.Option(help="linear, cosine, wsd, sqrt or constant.")
    ] = "linear",
    warmup: Annotated[float, typer.Option(help="Part of all steps.")] = 0.1,
    cooldown: Annotated[float, typer.Option(help="Of wsd and sqrt.")] = 0.2,
    width: Size = None,
    layers: Size = None,
    heads: Size = None,
    context: Size = None,
    batch: Size = None,
    out: Annotated[
        pathlib.Path,
        typer.Option(parser=path, help="Folder for all that comes out."),
    ] = pathlib.Path("runs/race"),
    data: Text = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the race in --out stopped.")
    ] = False,
) -> None:
    """Train one model with each recipe, each tuned alike, and compare them.

    A recipe is a name, or a call: adamw(b2=0.95|0.99) tunes b2 over two values,
    muon(adam_lr_ratio=0.05..1)@0.02 a range, with rates around 0.02; mine.module:make is one of
    your own. In Python the same is gradkit.race.
    """
    from gradkit._lab import plan, start, tasks

    planned = plan.plan(
        recipes,
        steps=steps,
        trials=trials,
        tuning_seeds=tuning_seeds,
        seeds=seeds,
        schedule=schedule,
        warmup=warmup,
        cooldown=cooldown,
        tune=tune,
    )
    sizes = {"width": width, "layers": layers, "heads": heads}
    sizes |= {"context": context, "batch": batch}
    chosen = tasks.named(task, data=data, without=out, **sizes)
    with resumable():
        start.start(chosen, planned, out, resume)


@app.command()
def bench(
    target: Annotated[
        str, typer.Option(help="The recipe whose test loss the others are to reach.")
    ] = "adamw",
    names: Annotated[
        str, typer.Option("--tasks", help="As those of race, with commas.")
    ] = "bytes,digits,rnn,vit,autoencoder,lstsq",
    recipes: Recipes = "adamw,lion,muon,soap,ademamix,adan",
    steps: Annotated[int, typer.Option(help="Updates of every run.")] = 300,
    trials: Annotated[int, typer.Option(help="Points to tune each recipe by.")] = 8,
    seeds: Annotated[int, typer.Option(help="Other runs, of the best one.")] = 3,
    tune: Annotated[str, typer.Option(help="As of race.")] = "rate",
    out: Annotated[
        pathlib.Path,
        typer.Option(parser=path, help="Folder for all that comes out."),
    ] = pathlib.Path("runs/bench"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the one in --out stopped.")
    ] = False,
) -> None:
    """Race on several tasks, and score each recipe by its way to the target's test loss.

    Steps and time to the loss of the tuned target, and for each recipe the part of tasks on which
    it takes at most so many times the best one's: a performance profile, as of AlgoPerf.
    """
    from gradkit._lab import bench

    with resumable():
        bench.run(names, recipes, target, steps, trials, seeds, tune, out, resume)


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Say how a race that was stopped goes on; the exit code is that of its signal."""
    from gradkit._lab.progress import Stopped

    on = "the same command with --resume goes on."
    try:
        yield
    except Stopped as stopped:
        leave(128 + stopped.number, f"stopped by {stopped}. {on.capitalize()}")
    except OSError as error:
        leave(2, f"{error}. Once that is mended, {on}")


if __name__ == "__main__":
    app()
