"""Progress bars on a terminal, and signals that stop a race where it is."""

import contextlib
import math
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from rich.progress import TimeRemainingColumn as TimeLeft

SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
]


class Stopped(Exception):
    """Asked to stop by a signal; everything up to here is saved."""

    def __init__(self, number: int):
        """Keep the number of the signal, by which the exit code goes."""
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def board(names: list[str], console: Console) -> Iterator[Callable[[Any], None]]:
    """Show one progress bar a recipe, with loss and time left; yield what updates it.

    Recipes go in order. An error leaves no bars above it.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[said]}", markup=False),
        TimeLeft(),
    )
    progress = Progress(*columns, console=console, expand=True)
    rows = {
        name: progress.add_task(name, total=1.0, start=False, said="") for name in names
    }
    seen = set()

    def fill(done: list[str]) -> None:
        for name in done:
            progress.update(rows[name], completed=1.0)

    def watch(at: Any) -> None:
        now, phase = at.progress, "reporting" if at.reporting else "tuning"
        row, key = rows[at.recipe], (at.recipe, at.reporting)
        if key not in seen:
            seen.add(key)
            fill(names[: names.index(at.recipe)])
            progress.start_task(row)
            if not console.is_terminal:
                console.print(f"{at.recipe}: {phase}")  # a log shows no bars
        part = (now.finished + now.step / now.steps) / now.points
        loss = f"loss {now.loss:.4g}" if math.isfinite(now.loss) else "diverged"
        done = min(1.0, 0.5 * at.reporting + 0.5 * part)
        progress.update(row, completed=done, said=f"{phase} {loss}")

    end = progress.stop
    progress.start()
    try:
        yield watch
        fill(names)  # also of what has been done before
    except Exception as error:
        if not isinstance(error, Stopped):
            progress.live.transient, end = True, progress.live.stop
        raise
    finally:
        end()


@contextlib.contextmanager
def interruptible(say: Callable[[str], None]) -> Iterator[Callable[[], None]]:
    """Yield a function that raises `Stopped` once a signal has come; a second one ends at once."""
    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        del frame
        received.append(number)
        for each in SIGNALS:
            signal.signal(each, before[each])
        say("Saving what is done; once more to leave at once.")

    before = {number: signal.signal(number, receive) for number in SIGNALS}

    def check() -> None:
        if received:
            raise Stopped(received[0])

    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
