"""Which axes of activations are features: made by parameters, cut into parts, joined again."""

import copy
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from gradkit._core.jaxpr.axes import Axis, Labels, Taken, labels
from gradkit._core.jaxpr.primitives import JOINS
from gradkit._core.jaxpr.values import Piece, View

Place = tuple[str, int]  # a path, and an axis of the parameter there
Cut = tuple[int, int]  # how an axis is cut: the step between entries, and how many


class Features:
    """What was found out so far of the axes of activations.

    An array of data has one `View` of features, whose labels are numbers that stand for axes
    of all parameters.
    """

    def __init__(self) -> None:
        """Nothing."""
        self._numbers: dict[Place, int] = {}
        self._places: list[Place] = []  # by number
        self._aligned: set[frozenset[Place]] = set()  # axes that data has in common
        self._known: set[Place] = set()  # axes that products sum over or make
        self._summed: set[Place] = set()  # axes that they sum over
        self._cuts: dict[Place, dict[Cut, set[tuple[int, int]]]] = {}
        self._whole: set[tuple[int, int, int]] = set()  # cuts that are joined again

    def __deepcopy__(self, memo: Any) -> "Features":
        """All but the numbers, which arrays bear."""
        new = copy.copy(self)
        for name in ("_aligned", "_known", "_summed", "_cuts", "_whole"):
            setattr(new, name, copy.deepcopy(getattr(self, name), memo))
        return new

    def __contains__(self, place: Place) -> bool:
        return place in self._known

    def add(self, path: str, inputs: Labels, outputs: Labels) -> None:
        """Axes of a parameter that a product sums over, and that it makes."""
        self._known |= {(path, axis) for axis in inputs | outputs}
        self._summed |= {(path, axis) for axis in inputs}

    def summed(self, path: str) -> Labels:
        """The axes of a parameter that a product sums over, somewhere."""
        return frozenset(axis for p, axis in self._summed if p == path)

    def is_cut(self, path: str) -> bool:
        """Whether a parameter, or what it makes, is used in parts."""
        return any(p == path for p, _ in self._cuts)

    def spread(self) -> None:
        """Axes that are the same as one of features are of features."""
        close(self._known, self._aligned)
        close(self._summed, self._aligned)

    def numbered(self, view: View) -> View:
        """A view of a parameter, with numbers for labels."""

        def number(axis: int) -> int:
            place = view.path, axis
            if place not in self._numbers:
                self._numbers[place] = len(self._places)
                self._places.append(place)
            return self._numbers[place]

        def named(parts: Axis) -> Axis:
            return tuple(
                part._replace(label=frozenset(map(number, part.label)))
                for part in parts
            )

        return View("", tuple(map(named, view.axes)))

    def merged(self, views: Iterable[View]) -> View | None:
        """One view for all: where axes of several parameters meet, they are the same."""
        result: View | None = None
        for view in views:
            if result is None:
                result = view
            elif len(result.axes) == len(view.axes):
                pairs = [*zip(result.axes, view.axes)]
                self.align(pairs)
                new = tuple(a if labels([a]) else b for a, b in pairs)
                result = result._replace(axes=new)
        return result

    def align(self, pairs: Iterable[tuple[Axis, Axis]]) -> None:
        """Write down that the axes of each pair are the same."""
        for a, b in pairs:
            for i, j in itertools.product(labels([a]), labels([b])):
                self._aligned.add(frozenset({self._places[i], self._places[j]}))

    def cut(
        self, views: Iterable[View], taken: Taken, shape: Sequence[int]
    ) -> frozenset[Piece]:
        """Write down that entries are taken of an array; of what the rest is a piece."""
        found = set()
        for view, (axis, (start, stop)) in itertools.product(views, taken.items()):
            parts = view.axes[axis]
            if (start, stop) == (0, shape[axis]) or len(parts) != 1:
                continue
            label, n, step = parts[0]
            for number in label if len(label) == 1 else ():
                cuts = self._cuts.setdefault(self._places[number], {})
                cuts.setdefault((step, n), set()).add((start, stop))
                found.add(((number, step, n), start))
        return frozenset(found)

    def pieces(self, name: str, each: Iterable[frozenset[Piece]]) -> frozenset[Piece]:
        """Of what the result of a primitive is a piece; what it joins again is whole."""
        found = frozenset[Piece]().union(*each)
        if name not in JOINS:
            return found
        starts = defaultdict(set)
        for cut, start in found:
            starts[cut].add(start)
        again = {cut for cut, begin in starts.items() if len(begin) > 1}
        self._whole |= again
        return frozenset(piece for piece in found if piece[0] not in again)

    def blocks(self, path: str, axis: int) -> dict[Cut, list[tuple[int, int]]]:
        """How the model cuts what an axis of a parameter makes into parts that go their ways."""
        place, found = (path, axis), {}
        for (step, n), parts in self._cuts.get(place, {}).items():
            ends = sorted(parts)
            tiled = [a for a, _ in ends] == [0, *(b for _, b in ends[:-1])]
            whole = (self._numbers[place], step, n) in self._whole
            if tiled and ends[-1][1] == n and not whole:
                found[step, n] = ends
        return found


def close(found: set[Place], pairs: Iterable[frozenset[Place]]) -> None:
    """Add to what was found what is the same, by pairs."""
    near: dict[Place, set[Place]] = defaultdict(set)
    for pair in pairs:
        for place in pair:
            near[place] |= pair
    new = [*found]
    while new:
        more = near[new.pop()] - found
        found |= more
        new += more
