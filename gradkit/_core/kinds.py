"""Which of many things are of one kind, so that one program works them all."""

from collections.abc import Hashable, Iterable

AT_ONCE = 64  # on a CPU: a concatenation compiles in the square of its operands


def places(kinds: Iterable[Hashable], most: int | None = None) -> list[list[int]]:
    """The places of each kind, at most so many together."""
    found: dict[Hashable, list[int]] = {}
    for i, kind in enumerate(kinds):
        found.setdefault(kind, []).append(i)
    return [
        group[n : n + (most or len(group))]
        for group in found.values()
        for n in range(0, len(group), most or len(group))
    ]
