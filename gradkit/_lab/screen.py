"""Output through rich, without markup: brackets in names are printed as they are."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text


def console(stderr: bool = False) -> Console:
    """A console without markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def table() -> Table:
    """An empty table in the style of all tables."""
    return Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)


def show(title: str, table: Table, to: Any) -> None:
    """Print a table under its title."""
    to.print()
    to.print(Text(title, style="bold"), table, sep="\n", end="")
