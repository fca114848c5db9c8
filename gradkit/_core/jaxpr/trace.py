"""Uses of parameters, and relations between their axes, collected by abstract interpretation."""

import copy
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from gradkit._core.jaxpr.axes import NONE, Axis, Labels, Taken, labels
from gradkit._core.jaxpr.primitives import JOINS, PRODUCTS
from gradkit._core.jaxpr.values import (
    Cut,
    ParameterView,
    Piece,
    Place,
    Score,
    Use,
    Value,
)

Ends = tuple[int, int]  # of a part: the first entry, and the one after the last
Same = frozenset[Place]  # two axes that stand for the same width


class Trace:
    """Facts recorded so far; `copy` is shallow, as elements of its collections are immutable."""

    def __init__(self) -> None:
        """Begin empty."""
        self.uses: dict[str, tuple[Use, ...]] = defaultdict(tuple)  # by path, in order
        # by use number: (event, number) for each number that multiplies the use
        self.factors: dict[int, frozenset[tuple[int, float]]] = defaultdict(frozenset)
        self.unassigned_factors: dict[
            int, float
        ] = {}  # by event, of activations that are not a sum of uses
        # by path: parameters upstream of its uses
        self.upstream: dict[str, frozenset[str]] = defaultdict(frozenset)
        self.feeds_products: set[str] = set()  # parameters with a product downstream
        self.ranked: set[str] = set()  # parameters whose products are sorted or ranked
        self.guessed_orders: set[tuple[str, str]] = (
            set()
        )  # pairs of parameters whose order is a guess
        self.scores: list[Score] = []
        self.expert_axes: set[Place] = set()
        # pairs of axes: if one numbers experts, both do
        self.same_axes: set[Same] = set()
        self.features: set[Place] = set()  # axes that products sum over or keep
        self.summed: set[Place] = set()  # axes that products sum over
        self.same_features: set[Same] = set()  # pairs that meet in an axis of data
        # ends of the parts
        self.cuts: dict[Cut, frozenset[Ends]] = defaultdict(frozenset)
        self.rejoined: set[Cut] = set()  # cuts whose parts are concatenated again
        self.serial_loops: set[int] = (
            set()
        )  # loops where a row meets the output of the row before it
        self.loop_count = 0  # number so far
        self.event_count = 0  # number of uses and factors so far

    def copy(self) -> "Trace":
        """Return an independent copy."""
        new = Trace()
        for name, x in vars(self).items():
            setattr(new, name, copy.copy(x))
        return new

    def experts(self, path: str) -> Labels:
        """Axes of a parameter that number experts, by its own uses or by linked parameters."""
        return frozenset(axis for p, axis in self.expert_axes if p == path)

    def sums(self, path: str) -> Labels:
        """Axes of a parameter that some product sums over."""
        return frozenset(axis for p, axis in self.summed if p == path)

    def is_cut(self, path: str) -> bool:
        """Whether a parameter, or its output, is cut into parts."""
        return any(place[0] == path for place, *_ in self.cuts)

    def blocks(self, place: Place) -> list[tuple[int, list[Ends]]]:
        """Cuts of an output axis into parts that stay apart: step, and ends of each part."""
        blocks = []
        for cut in [cut for cut in self.cuts if cut[0] == place]:
            (_, step, n), ends = cut, sorted(self.cuts[cut])
            tiled = [a for a, _ in ends] == [0, *(b for _, b in ends[:-1])]
            if tiled and ends[-1][1] == n and cut not in self.rejoined:
                blocks.append((step, ends))
        return blocks

    def record(
        self, view: ParameterView, use: Use, near: frozenset[int] = frozenset()
    ) -> int:
        """Add a use, beside data that depends on the carries of loops `near`; return its number."""
        self.serial_loops |= view.rows & near
        self.event_count += 1
        self.uses[view.path] += (
            use._replace(
                layers=view.layers,
                experts=use.experts | view.experts,
                indexed=view.indexed,
                at=self.event_count,
            ),
        )
        self.factors[self.event_count] |= {(0, view.factor)}
        self.expert_axes |= {(view.path, i) for i in use.experts | view.experts}
        if use.by in PRODUCTS:
            self.record_features(view.path, use)
        elif use.by == "gather":
            self.features |= {(view.path, axis) for axis in use.outputs}
        return self.event_count

    def record_features(self, path: str, use: Use) -> None:
        """Mark the inputs and outputs of a product as feature axes."""
        self.features |= {(path, axis) for axis in use.inputs | use.outputs}
        self.summed |= {(path, axis) for axis in use.inputs}

    def add_up(
        self, path: str, at: int, inputs: Labels, ancestors: frozenset[str]
    ) -> None:
        """Turn the entrywise use `at` into a product that sums over `inputs`.

        `ancestors` are the parameters upstream of the data.
        """
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
                self.record_features(path, use)
        self.upstream[path] |= ancestors - {path}
        self.feeds_products |= ancestors - {path}

    def assign(self, x: Value, use: int | None = None) -> Value:
        """Assign the factors of `x` to the uses it sums, else to `use`; return `x` without them."""
        for event, number, origins in x.factors:
            for at in origins or (() if use is None else (use,)):
                self.factors[at] |= {(event, number)}
            if not origins and use is None and x.ancestors:
                self.unassigned_factors[event] = number
        return x._replace(factors=())

    def link(self, view: ParameterView, made: Iterable[ParameterView]) -> None:
        """Link the axes of `view` with those of the products that the data is `made` of."""
        self.same_axes |= {
            frozenset({(view.path, i), (mark.path, j)})
            for mark in made
            for own_axis, other_axis in zip(view.axes, mark.axes)
            for i, j in itertools.product(labels([own_axis]), labels([other_axis]))
        }

    def align(self, pairs: Iterable[tuple[Axis, Axis]]) -> None:
        """Link the feature axes of each pair."""
        self.same_features |= {
            frozenset({i, j})
            for left, right in pairs
            for a, b in itertools.product(left, right)
            for i, j in itertools.product(a.label, b.label)
        }

    def merged(self, views: Iterable[ParameterView]) -> ParameterView | None:
        """Merge views of features of one array into one, and link the axes that coincide."""
        first: ParameterView | None = None
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
        self, views: Iterable[ParameterView], taken: Taken, shape: Sequence[int]
    ) -> frozenset[Piece]:
        """Record that entries `taken` of an array are used apart; return the pieces."""
        pieces = set()
        for view, (axis, (start, stop)) in itertools.product(views, taken.items()):
            parts = view.axes[axis]
            if (start, stop) == (0, shape[axis]) or len(parts) != 1:
                continue
            label, n, step = parts[0]
            for place in label if len(label) == 1 else ():
                self.cuts[place, step, n] |= {(start, stop)}
                pieces.add(((place, step, n), start))
        return frozenset(pieces)

    def pieces(self, name: str, each: Iterable[frozenset[Piece]]) -> frozenset[Piece]:
        """Pieces that the result of primitive `name` consists of; record cuts it rejoins."""
        pieces = NONE.union(*each)
        if name not in JOINS:
            return pieces
        starts = Counter(cut for cut, _ in pieces)
        joined = {cut for cut, n in starts.items() if n > 1}
        self.rejoined |= joined
        return frozenset(piece for piece in pieces if piece[0] not in joined)

    def propagate(self) -> None:
        """Extend expert, feature and summed axes to all linked axes (transitive closure)."""
        _transitive_closure(self.expert_axes, self.same_axes)
        _transitive_closure(self.features, self.same_features)
        _transitive_closure(self.summed, self.same_features)


def _transitive_closure(members: set[Place], pairs: Iterable[Same]) -> None:
    """Add to `members` all places that a chain of `pairs` connects to one of them."""
    neighbours: dict[Place, set[Place]] = defaultdict(set)
    for pair in pairs:
        for place in pair:
            neighbours[place] |= pair
    new = [*members]
    while new:
        added = neighbours[new.pop()] - members
        members |= added
        new += added
