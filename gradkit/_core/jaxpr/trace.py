"""What was found of a model's parameters, and of the axes of its activations, in its jaxpr."""

import copy
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from gradkit._core.jaxpr.axes import NONE, Axis, Labels, Taken, labels
from gradkit._core.jaxpr.primitives import JOINS, PRODUCTS
from gradkit._core.jaxpr.values import (
    Cut,
    Piece,
    Place,
    Score,
    Use,
    Value,
    View,
)

Ends = tuple[int, int]  # of a part: the first entry, and the one after the last
Same = frozenset[Place]  # two axes that are one and the same


class Trace:
    """What is known after some equations; what its sets and mappings hold does not change."""

    def __init__(self) -> None:
        """Nothing."""
        self.uses: dict[str, tuple[Use, ...]] = defaultdict(tuple)  # by path, in order
        # of uses, by their numbers: by which numbers the model multiplies them, and where
        self.factors: dict[int, frozenset[tuple[int, float]]] = defaultdict(frozenset)
        self.lost: dict[int, float] = {}  # factors of what is no product of parameters
        # upstream paths, by path
        self.before: dict[str, frozenset[str]] = defaultdict(frozenset)
        self.followed: set[str] = set()  # paths with a product downstream
        self.ranked: set[str] = set()  # paths whose products are ranked
        self.guessed: set[tuple[str, str]] = set()  # products whose order is a guess
        self.scores: list[Score] = []
        self.expert_axes: set[Place] = set()
        self.alike: set[Same] = set()  # axes of parameters
        self.features: set[Place] = set()  # axes that products sum over or make
        self.summed: set[Place] = set()  # axes that they sum over
        self.aligned: set[Same] = set()  # axes that data has in common
        self.cuts: dict[Cut, frozenset[Ends]] = defaultdict(frozenset)
        self.whole: set[Cut] = set()  # cuts that are joined again
        self.serial: set[int] = set()  # loops whose rows meet what their rows made
        self.loops = 0  # so far
        self.events = 0  # uses and factors so far

    def copy(self) -> "Trace":
        """The same, to be added to on its own."""
        new = Trace()
        for name, x in vars(self).items():
            setattr(new, name, copy.copy(x))
        return new

    def experts(self, path: str) -> Labels:
        """The axes of a parameter that number experts, as other parameters show."""
        return frozenset(axis for p, axis in self.expert_axes if p == path)

    def sums(self, path: str) -> Labels:
        """The axes of a parameter that a product sums over, somewhere."""
        return frozenset(axis for p, axis in self.summed if p == path)

    def is_cut(self, path: str) -> bool:
        """Whether a parameter, or what it makes, is used in parts."""
        return any(place[0] == path for place, *_ in self.cuts)

    def blocks(self, place: Place) -> list[tuple[int, list[Ends]]]:
        """How the model cuts what an axis makes into parts that go their ways: by which step."""
        found = []
        for cut in [cut for cut in self.cuts if cut[0] == place]:
            (_, step, n), ends = cut, sorted(self.cuts[cut])
            tiled = [a for a, _ in ends] == [0, *(b for _, b in ends[:-1])]
            if tiled and ends[-1][1] == n and cut not in self.whole:
                found.append((step, ends))
        return found

    def record(self, view: View, use: Use, near: frozenset[int] = frozenset()) -> int:
        """Write down a use, beside data of the carries `near`, and return its number."""
        self.serial |= view.rows & near
        self.events += 1
        self.uses[view.path] += (
            use._replace(
                layers=view.layers,
                experts=use.experts | view.experts,
                indexed=view.indexed,
                at=self.events,
            ),
        )
        self.factors[self.events] |= {(0, view.factor)}
        self.expert_axes |= {(view.path, i) for i in use.experts | view.experts}
        if use.by in PRODUCTS:
            self.made_by_product(view.path, use)
        elif use.by == "gather":
            self.features |= {(view.path, axis) for axis in use.outputs}
        return self.events

    def made_by_product(self, path: str, use: Use) -> None:
        """What a product sums over, and what it makes, is of features."""
        self.features |= {(path, axis) for axis in use.inputs | use.outputs}
        self.summed |= {(path, axis) for axis in use.inputs}

    def add_up(self, path: str, at: int, inputs: Labels, past: frozenset[str]) -> None:
        """The use `at` was a product, whose `inputs` are summed, with data made of `past`."""
        for i, use in enumerate(self.uses[path]):
            if use.at == at:
                use = use._replace(
                    by="dot_general",
                    inputs=inputs,
                    outputs=use.outputs - use.over - inputs,
                    experts=use.experts | use.over - inputs,
                )
                uses = self.uses[path]
                self.uses[path] = (*uses[:i], use, *uses[i + 1 :])
                self.expert_axes |= {(path, axis) for axis in use.experts}
                self.made_by_product(path, use)
        self.before[path] |= past - {path}
        self.followed |= past - {path}

    def assign(self, x: Value, use: int | None = None) -> Value:
        """`x`, its factors assigned to what it is a sum of, or to the `use` it goes into."""
        for event, number, origins in x.factors:
            for at in origins or (() if use is None else (use,)):
                self.factors[at] |= {(event, number)}
            if not origins and use is None and x.past:
                self.lost[event] = number
        return x._replace(factors=())

    def link(self, view: View, made: Iterable[View]) -> None:
        """The axes of `view` are the same as those of what the data is `made` of."""
        self.alike |= {
            frozenset({(view.path, i), (mark.path, j)})
            for mark in made
            for ours, theirs in zip(view.axes, mark.axes)
            for i, j in itertools.product(labels([ours]), labels([theirs]))
        }

    def align(self, pairs: Iterable[tuple[Axis, Axis]]) -> None:
        """The axes of features of each pair are the same."""
        self.aligned |= {
            frozenset({i, j})
            for ours, theirs in pairs
            for a, b in itertools.product(ours, theirs)
            for i, j in itertools.product(a.label, b.label)
        }

    def merged(self, views: Iterable[View]) -> View | None:
        """One view of features for all: where axes of several parameters meet, they are the same."""
        first: View | None = None
        for view in views:
            if first is None:
                first = view
            elif len(first.axes) == len(view.axes):
                self.align(zip(first.axes, view.axes))
                axes = (
                    a if any(part.label for part in a) else b
                    for a, b in zip(first.axes, view.axes)
                )
                first = first._replace(axes=tuple(axes))
        return first

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
            for place in label if len(label) == 1 else ():
                self.cuts[place, step, n] |= {(start, stop)}
                found.add(((place, step, n), start))
        return frozenset(found)

    def pieces(self, name: str, each: Iterable[frozenset[Piece]]) -> frozenset[Piece]:
        """Of what the result of a primitive is a piece; what it joins again is whole."""
        found = NONE.union(*each)
        if name not in JOINS:
            return found
        starts = Counter(cut for cut, _ in found)
        again = {cut for cut, n in starts.items() if n > 1}
        self.whole |= again
        return frozenset(piece for piece in found if piece[0] not in again)

    def propagate(self) -> None:
        """Axes that are the same as one of experts, or of features, are of such."""
        _close(self.expert_axes, self.alike)
        _close(self.features, self.aligned)
        _close(self.summed, self.aligned)


def _close(found: set[Place], pairs: Iterable[Same]) -> None:
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
