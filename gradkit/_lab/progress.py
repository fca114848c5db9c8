"""Progress bars on a terminal, and Ctrl-C that stops after the current steps."""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft

from gradkit._lab.race import Watch


@contextlib.contextmanager
def board(names: list[str], steps: int, unit: str, console: Console) -> Iterator[Watch]:
    """Show one progress bar a recipe, with loss, speed and time left; yield what updates it."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}", markup=False),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeLeft(),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        rows = {
            name: progress.add_task(name, total=steps, start=False, loss="", speed="")
            for name in names
        }

        def watch(name: str, step: int, loss: float, speed: float) -> None:
            status = f"loss {loss:.3f}" if math.isfinite(loss) else "diverged"
            status = status if step else "compiling"
            if step:
                progress.start_task(rows[name])
            rate = f"{speed:,.0f} {unit}/s" if speed else ""
            progress.update(rows[name], completed=step, loss=status, speed=rate)
            if not console.is_terminal and step in (0, steps):
                console.print(f"{name}: {status} {rate}")  # a log shows no bars

        yield watch


@contextlib.contextmanager
def interruptible(say: Callable[[str], None]) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C was pressed; a second Ctrl-C ends at once."""
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        del number, frame
        pressed = True
        signal.signal(signal.SIGINT, before)
        say("Saving what is done; press Ctrl-C again to leave at once.")

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
