"""What is printed through rich: names stay as they are, whatever brackets they hold."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def console(stderr: bool = False) -> Console:
    """A console that takes no part of a text for markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def table() -> Table:
    """An empty table, as all are drawn."""
    return Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)


def show(title: str, table: Table, to: Any) -> None:
    """A table under its title."""
    to.print()
    to.print(Text(title, style="bold"), table, sep="\n", end="")
