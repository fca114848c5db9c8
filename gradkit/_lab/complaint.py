"""Errors of the command line that the user can fix, each one line."""

import difflib
from collections.abc import Collection


class Complaint(ValueError):
    """An error in the request, with a remedy, in one line."""


def printable(text: str) -> str:
    """`text` with unprintable characters, as in file names, escaped."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def near(name: str, known: Collection[str]) -> str:
    """` Did you mean ...?` with names of `known` similar to `name`; empty if there are none."""
    lower = {name.lower(): name for name in known}
    typed = name.strip().lower().rpartition(".")[2]
    inside = [key for key in lower if len(typed) > 2 and typed in key]
    alike = difflib.get_close_matches(typed, lower)
    matches = [lower[key] for key in dict.fromkeys([*alike, *inside])][:4]
    return f" Did you mean {' or '.join(matches)}?" if matches else ""


def pick(kind: str, name: str, known: Collection[str], where: str = "") -> str:
    """The lower-case name in `known` that equals `name`, ignoring case, or a `Complaint`.

    Its message lists the names, or says `where` to find them.
    """
    typed = name.strip().lower()
    if typed in known:
        return typed
    everything = where or f"Choose from {', '.join(known)}."
    raise Complaint(f"no {kind} {name!r}.{near(name, known)} {everything}")
