"""What a user of the command line can mend, said in one line."""

import difflib
from collections.abc import Collection


class Complaint(ValueError):
    """One line: what is wrong with what was asked for, and what to do."""


def printable(text: str) -> str:
    """`text` on one line that any terminal takes, whatever names of files are in it."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def near(name: str, known: Collection[str]) -> str:
    """A question after those of `known` that `name` may stand for; nothing if none may."""
    lower = {one.lower(): one for one in known}
    typed = name.strip().lower().rpartition(".")[2]
    inside = [one for one in lower if len(typed) > 2 and typed in one]
    alike = difflib.get_close_matches(typed, lower)
    found = [lower[one] for one in dict.fromkeys([*alike, *inside])][:4]
    return f" Did you mean {' or '.join(found)}?" if found else ""


def pick(kind: str, name: str, known: Collection[str], where: str = "") -> str:
    """The one of `known`, all in small letters, that `name` is in any case.

    Where there is none, `where` says how to find them all; else they are named.
    """
    typed = name.strip().lower()
    if typed in known:
        return typed
    everything = where or f"Choose from {', '.join(known)}."
    raise Complaint(f"no {kind} {name!r}.{near(name, known)} {everything}")
