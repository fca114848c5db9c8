"""Indices grouped by kind, so that one program works all leaves of a kind."""

from collections.abc import Hashable, Iterable

AT_ONCE = 64  # on a CPU: a concatenation compiles in the square of its operands


def places(kinds: Iterable[Hashable], most: int | None = None) -> list[list[int]]:
    """Indices of equal `kinds`, as groups of at most `most`."""
    groups: dict[Hashable, list[int]] = {}
    for i, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(i)
    return [
        group[n : n + (most or len(group))]
        for group in groups.values()
        for n in range(0, len(group), most or len(group))
    ]
