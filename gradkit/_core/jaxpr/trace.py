"""What a model does with each parameter: followed from equation to equation of its jaxpr.

An array that is a parameter, whole or rearranged, is a `Value` with views. An array that depends
on the example is data. Where the two meet, the parameter is used, and its axes say how. A number
that multiplies data is a factor of what the data is made of, or of what it goes into.
"""

import copy
import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from gradkit._core.jaxpr import axes, statistics, values
from gradkit._core.jaxpr.axes import NONE, Labels, Taken, labels
from gradkit._core.jaxpr.features import Features, Place, close
from gradkit._core.jaxpr.primitives import ENTRYWISE, MOVES, PRODUCTS, SUMS
from gradkit._core.jaxpr.values import (
    AS_DATA,
    STATISTICS,
    UNKNOWN,
    Factor,
    Score,
    Use,
    Value,
    View,
)
from gradkit._core.jaxpr.walk import Turns, Walker, needed, opened
from gradkit._core.numbers import is_array
from gradkit._core.paths import leaf_paths


def follow(
    f: Callable[..., Any],
    params: Any,
    *args: Any,
    grown: Mapping[str, Labels] | None = None,
) -> "Trace":
    """What `f(params, *args)` does with each array in `params`; the rest is data.

    Where it is known which axes have `grown` with the model, it tells the order of parameters
    that are multiplied before they meet data; else their lengths tell.
    """
    leaves, structure = jax.tree.flatten(params)
    arrays = {i: x for i, x in enumerate(leaves) if is_array(x)}

    def of_arrays(given: Mapping[int, Any], *args: Any) -> Any:
        params = structure.unflatten(given.get(i, x) for i, x in enumerate(leaves))
        found = jax.tree.leaves(f(params, *args))
        return [x for x in found if isinstance(x, jax.Array)]

    program = jax.make_jaxpr(of_arrays)(arrays, *args)
    paths = leaf_paths(params)
    views = [View(paths[i], axes.whole(x.shape)) for i, x in arrays.items()]
    data = [Value(data=True)] * (len(opened(program).invars) - len(views))
    trace = Trace(grown)
    results = trace.run(needed(program), [*(Value((v,)) for v in views), *data])
    for x in sorted(results, key=lambda x: not x.data):
        trace.end(x)
    trace.spread()
    return trace


class Trace(Walker[Value]):
    """What was found out so far."""

    def __init__(self, grown: Mapping[str, Labels] | None = None):
        """Nothing; `grown` are axes, by path."""
        self.grown = grown
        self.uses: dict[str, dict[int, Use]] = defaultdict(dict)  # by path and number
        self.factors: dict[int, dict[int, float]] = defaultdict(dict)  # of uses
        self.lost: dict[int, float] = {}  # factors of what is no product of parameters
        self.before: dict[str, set[str]] = defaultdict(set)  # what is upstream, by path
        self.followed: set[str] = set()  # paths with a product downstream
        self.scores: list[Score] = []
        self.ranked: set[str] = set()  # paths whose products are ranked
        self.guessed: set[tuple[str, str]] = set()  # products whose order is a guess
        self.alike: set[frozenset[Place]] = set()  # axes that are one and the same
        self.side_by_side: set[Place] = set()  # axes of experts
        self.features = Features()  # what axes of data are
        self.loops = 0  # so far
        self.serial: set[int] = set()  # loops whose rows meet what their rows made
        self.events = 0  # uses and factors so far

    def spread(self) -> None:
        """Axes that are the same as one of experts, or of features, are of such."""
        close(self.side_by_side, self.alike)
        self.features.spread()

    def experts(self, path: str) -> Labels:
        """The axes of a parameter that number experts, as other parameters show."""
        return frozenset(axis for p, axis in self.side_by_side if p == path)

    def factor(self, use: Use) -> float:
        """By which numbers the model multiplies what a use makes."""
        return math.prod(self.factors[use.at].values())

    def constant(self, x: Any) -> Value:
        """A number, or an array of them."""
        return values.constant(x)

    def shared(self, x: Value) -> Value:
        """What several read is a sum of its own to none of them."""
        return x._replace(origins=frozenset(), terms=(), pairs=False)

    def call(self, program: Any, eqn: Any, xs: list[Value]) -> list[Value]:
        """Follow what a jaxpr does with its operands, or with the parts that a device has."""
        local = map(values.resized, xs, [x.aval.shape for x in opened(program).invars])
        out = self.run(program, local)
        return [values.resized(x, v.aval.shape) for x, v in zip(out, eqn.outvars)]

    def primitive(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The results of one equation."""
        match eqn.primitive.name:
            case name if name in PRODUCTS:
                return [self._product(eqn, *xs[:2])]
            case "gather" | "dynamic_slice":
                return [self._lookup(eqn, *xs)]
            case "optimization_barrier":
                return xs
            case _ if not eqn.outvars:
                return []
            case "top_k" | "approx_top_k" | "sort" | "argmax" | "argmin":
                self.ranked |= values.sources(xs)
        return self._entrywise(eqn, xs)

    def end(self, x: Value) -> None:
        """`x` is what the model returns; what meets no data, beside what does, goes in as such."""
        if x.data:
            self.lay(self.settle(x))
        elif self.uses:
            self._use(AS_DATA, x, x.carries)

    def settle(self, x: Value) -> Value:
        """`x` as plain data, if data it is: what was looked up is an embedding."""
        return self._use("gather", x, x.carries) if x.data and x.views else x

    def lay(self, x: Value, use: int | None = None) -> Value:
        """`x`, its factors laid to what it is a sum of, or to the `use` it goes into."""
        for event, number, origins in x.factors:
            for at in origins or (() if use is None else (use,)):
                self.factors[at][event] = number
            if not origins and use is None and x.past:
                self.lost[event] = number
        return x._replace(factors=())

    def _next(self) -> int:
        self.events += 1
        return self.events

    def _use(
        self, by: str, x: Value, near: frozenset[int], beside: View | None = None
    ) -> Value:
        """Use `x` entry by entry, beside data of the carries `near`; what is left of it."""
        found = []
        looked = any(view.looked for view in x.views)
        for view, before, after in values.in_turn(x.views, lambda v: bool(v.looked)):
            inputs, outputs = view.looked | before, labels(view.axes) - view.looked
            if by not in (*ENTRYWISE, AS_DATA) and len(outputs) > 1:
                found.append(self._record(view, Use(f"{UNKNOWN} {by}"), near))
                continue
            way = "dot_general" if before else "gather" if looked else by
            use = Use(way, inputs, outputs | after, over=values.over(view, beside))
            found.append(self._record(view, use, near))
        if not found:
            return x
        paths = frozenset(view.path for view in x.views)
        return x._replace(
            views=(),
            origins=frozenset(found),
            sources=x.sources | paths if looked else x.sources,
            past=x.past | paths,
            features=self.features.merged(
                self.features.numbered(view) for view in x.views
            ),
        )

    def _record(self, view: View, use: Use, near: frozenset[int] = frozenset()) -> int:
        """Write down one use, and return its number."""
        self.serial |= view.rows & near
        experts, at = use.experts | view.experts, self._next()
        self.uses[view.path][at] = use._replace(
            layers=view.layers, experts=experts, picked=view.picked, at=at
        )
        self.factors[at][0] = view.factor
        self.side_by_side |= {(view.path, axis) for axis in experts}
        if use.by in PRODUCTS:
            self.features.add(view.path, use.inputs, use.outputs)
        if use.by == "gather":
            self.features.add(view.path, NONE, use.outputs)
        return at

    def _entrywise(self, eqn: Any, xs: list[Value]) -> list[Value]:
        name, shapes = eqn.primitive.name, [x.aval.shape for x in eqn.outvars]
        if name not in MOVES:
            xs = [self.settle(x) for x in xs]
        if not any(x.data for x in xs):
            return self._of_constants(eqn, xs, shapes)
        marks = [mark for x in xs for mark in x.made]
        made = [values.moved_all(marks, eqn, shape) for shape in shapes]
        met: list[Value] = []
        for x in (x for x in xs if not x.data and x.views):
            for view in values.moved_all(x.views, eqn, shapes[0]):
                self._link(view, made[0])
            over = self._features(eqn, [y for y in xs if y.data], shapes[0])
            met.append(self._use(name, x, values.carries(xs), over))
        data = [x for x in xs if x.data]
        for path in values.past(met):
            self.before[path] |= values.past(data) - {path}
        base = Value(
            data=True,
            sources=values.sources(data),
            past=values.past([*data, *met]),
            carries=values.carries(xs),
            pieces=self.features.pieces(name, (x.pieces for x in data)),
            reduced=statistics.reduced(eqn, data),
            normalized=statistics.normalized(name, xs),
            pairs=statistics.pairs(eqn, data),
        )
        base = self._multiplied(eqn, xs, met, base)
        if name == "reduce_sum":
            base = self._added_up(eqn, data[0], base)
        if name == "mul" and len(met) == 1 and len(data) == 1:
            by = next(x.views for x in xs if x.views)
            base = base._replace(terms=tuple(zip(by, sorted(met[0].origins))))
        if base.terms:
            moved = [(values.moved(v, eqn, shapes[0]), at) for v, at in base.terms]
            base = base._replace(terms=tuple((v, at) for v, at in moved if v))
        views = [self._views(eqn, data, shape) for shape in shapes]
        features = [self._features(eqn, data + met, shape) for shape in shapes]
        return [
            self._cut(
                eqn,
                axes.taken(eqn, i),
                data,
                base._replace(views=v, made=m, features=f),
            )
            for i, (v, m, f) in enumerate(zip(views, made, features))
        ]

    def _of_constants(
        self, eqn: Any, xs: list[Value], shapes: Sequence[Any]
    ) -> list[Value]:
        """The results where no operand is data: parameters still, and numbers."""
        name, number = eqn.primitive.name, values.number(eqn, xs)

        def scaled(x: Value) -> Value:
            factor = values.multiplied(name, xs, x)
            if factor in (None, 1.0):  # what is not linear is as it is
                return x
            views = tuple(v._replace(factor=v.factor * factor) for v in x.views)
            return x._replace(views=views)

        xs = [scaled(x) for x in xs]
        if name in ("mul", "div"):
            xs = _gains(xs)
        found = []
        for i, shape in enumerate(shapes):
            out = Value(self._views(eqn, xs, shape), number=number)
            found.append(self._cut(eqn, axes.taken(eqn, i), xs, out))
        return found

    def _multiplied(
        self, eqn: Any, xs: list[Value], met: list[Value], out: Value
    ) -> Value:
        """`out`, with what is known of the factors, origins and score of the operands."""
        name = eqn.primitive.name
        data = [x for x in (xs[1:] if name == "select_n" else xs) if x.data]
        terms = [x for x in data if x.past or x.factors or len(data) == 1]
        numbers = [values.multiplied(name, xs, x) for x in terms]
        known = [n for n in numbers if n is not None]
        if not terms or len(known) < len(terms):
            for x in data:
                self.lay(x)
            return out
        if name in ("mul", "div"):
            return self._times(name, xs, terms[0], known[0], out)
        first, *rest = terms
        example = len(data) > len(terms)
        if any((x.factors, x.score) != (first.factors, first.score) for x in rest) or (
            met or (example and name in SUMS)
        ):
            lost = any(not f.origins for x in terms for f in x.factors)
            out = out._replace(normalized=out.normalized or lost)  # of unknown size
            for x in terms:
                self.lay(x)
        else:
            out = out._replace(factors=first.factors, score=first.score)
        sums = [*terms, *met]
        if all(x.origins for x in sums) and not example:
            out = out._replace(origins=values.joined(x.origins for x in sums))
        return out if sums[1:] else out._replace(terms=first.terms, pairs=first.pairs)

    def _times(
        self, name: str, xs: list[Value], x: Value, number: float, out: Value
    ) -> Value:
        """`out`, if it is `x` times a number, or times parameters too."""
        for other in (y for y in xs if y is not x and y.data):
            self.lay(other)
        factors = x.factors
        if name == "div" and x.reduced and math.isclose(1 / number, x.reduced):
            number = 1.0  # a mean is no sum that grows
        if x.score is not None:
            old = self.scores[x.score]
            self.scores[x.score] = old._replace(scale=old.scale * number)
        elif number != 1:
            factors = (*factors, Factor(self._next(), number, x.origins))
        bare = not any(y.views for y in xs if y is not x)
        return out._replace(
            factors=factors,
            origins=x.origins,
            score=x.score,
            terms=x.terms if bare else (),
            pairs=x.pairs and bare,
        )

    def _added_up(self, eqn: Any, x: Value, out: Value) -> Value:
        """`out`, the sum of `x`, which is a product if parameters or activations multiply it."""
        gone = eqn.params["axes"]
        found = set()
        for view, at in x.terms:
            summed = labels(view.axes[i] for i in gone)
            if summed and at in self.uses[view.path]:
                old = self.uses[view.path].pop(at)
                use = old._replace(
                    by="dot_general",
                    inputs=summed,
                    outputs=old.outputs - old.over - summed,
                    experts=old.experts | old.over - summed,
                )
                self.side_by_side |= {(view.path, axis) for axis in use.experts}
                self.uses[view.path][at] = use
                self.features.add(view.path, use.inputs, use.outputs)
                found.add(at)
                self.before[view.path] |= x.past - {view.path}
                self.followed |= x.past - {view.path}
        if found:
            paths = frozenset(view.path for view, at in x.terms if at in found)
            for f in out.factors:
                for at in found:
                    self.factors[at][f.event] = f.number
            return out._replace(
                factors=(), origins=frozenset(found), sources=paths, reduced=0
            )
        if x.pairs:
            count = math.prod(eqn.invars[0].aval.shape[i] for i in gone)
            return self._scored(count, [x], out)._replace(reduced=0)
        return out

    def _scored(self, count: int, xs: Sequence[Value], out: Value) -> Value:
        """`out`, a sum of `count` products of activations."""
        scale = math.prod(f.number for x in xs for f in x.factors)
        normal = any(x.normalized for x in xs)
        self.scores.append(Score(count, scale, values.sources(xs), normal))
        return out._replace(score=len(self.scores) - 1, factors=())

    def _cut(self, eqn: Any, taken: Taken, xs: Sequence[Value], out: Value) -> Value:
        """`out`, told what it is a piece of, if some entries are `taken` of one array."""
        if len(xs) != 1 or not taken:
            return out
        (x,), shape = xs, eqn.invars[0].aval.shape
        views = [*map(self.features.numbered, x.views)]
        if x.features is not None:
            views.append(x.features)
        cut = self.features.cut(views, taken, shape)
        return out._replace(pieces=out.pieces | cut)

    def _views(self, eqn: Any, xs: list[Value], shape: Any) -> tuple[View, ...]:
        """The views of `xs` in the result: none in mere statistics of a parameter."""
        views = [view for x in xs for view in x.views]
        if eqn.primitive.name.startswith(STATISTICS):
            return ()
        moved = values.moved_all(views, eqn, shape)
        for view in views:
            if view.path not in {v.path for v in moved}:
                self._record(view, Use(f"{UNKNOWN} {eqn.primitive.name}"))
        return moved

    def _link(self, view: View, made: Iterable[View]) -> None:
        """The axes of `view` are the same as those of what the data is made of."""
        for mark in made:
            for a, b in zip(view.axes, mark.axes):
                for i, j in itertools.product(labels([a]), labels([b])):
                    self.alike.add(frozenset({(view.path, i), (mark.path, j)}))

    def _features(self, eqn: Any, xs: Sequence[Value], shape: Any) -> View | None:
        """Which axes of parameters the axes of a result are, as the operands say."""
        views = [x.features for x in xs if x.features is not None]
        return self.features.merged(values.moved_all(views, eqn, shape))

    def _lookup(self, eqn: Any, x: Value, *indices: Value) -> Value:
        x, chosen = self.settle(x), any(i.data for i in indices)
        fixed = all(i.number is not None for i in indices)
        found = [values.looked_up(view, eqn, chosen, fixed) for view in x.views]
        data, carries = x.data or chosen, values.carries((x, *indices))
        features = x.features and values.looked_up(x.features, eqn, True, fixed)
        taken = axes.taken(eqn, 0, [i.number for i in indices])
        out = x._replace(
            views=tuple(found),
            data=data,
            made=(),
            features=features,
            past=values.past((x, *indices)),
            carries=carries,
            terms=(),
        )
        return self._cut(eqn, taken, [x], out)

    def _product(self, eqn: Any, left: Value, right: Value) -> Value:
        summed, _ = axes.summed_and_batch(eqn)
        if not (left.data or right.data):
            return self._of_parameters(eqn, left, right)
        left, right = both = [
            self._as_activation(x, gone) for x, gone in zip((left, right), summed)
        ]
        if left.data and right.data and left.views and right.views:
            left, right = both = [
                self.settle(x) if _are_rows(x, gone) else x
                for x, gone in zip(both, summed)
            ]
        met: dict[int, tuple[int, View]] = {}  # by the number of a use, side and view
        for i, x, other in ((0, left, right), (1, right, left)):
            met |= {at: (i, view) for at, view in self._meet(eqn, i, x, other)}
        if met:  # of several, the first
            self.lay(both[1 - met[min(met)][0]], min(met))
        made = [(i, mark) for i, x in enumerate(both) for mark in x.made]
        features = [(i, x.features) for i, x in enumerate(both) if x.features]
        features += [(i, self.features.numbered(view)) for i, view in met.values()]
        views = (View(v.path, axes.product(v.axes, eqn, i)) for i, v in features)
        paths = frozenset(view.path for _, view in met.values())
        result = Value(
            data=True,
            origins=frozenset(met),
            sources=paths or values.sources(both),
            past=values.past(both) | paths,
            made=values.marks([*made, *met.values()], eqn),
            features=self.features.merged(views),
            carries=values.carries(both),
        )
        if met:
            return result
        if not (left.data and right.data):
            x = left if left.data else right
            return result._replace(factors=x.factors, origins=x.origins)
        self.followed |= values.past(both)
        count = math.prod(eqn.invars[0].aval.shape[i] for i in summed[0])
        return self._scored(count, both, result)

    def _as_activation(self, x: Value, summed: Iterable[int]) -> Value:
        """`x`, unless it is a product of constants and of a parameter that is summed over."""
        gone = labels(view.axes[i] for view in x.views for i in summed)
        if gone and any(path == "" for view in x.views for _, path in view.links):
            return self._use(AS_DATA, x, x.carries)._replace(data=True)
        return x

    def _meet(
        self, eqn: Any, side: int, x: Value, other: Value
    ) -> Iterator[tuple[int, View]]:
        """Write down how the parameters in `x`, on one side of a product, meet what is there."""
        both = axes.summed_and_batch(eqn)
        (summed, theirs), (batch, beside) = (
            (each[side], each[1 - side]) for each in both
        )
        rows = other.data and not other.views  # which may meet what x looked up
        entered = lambda view: bool(labels(view.axes[i] for i in summed))
        for view, before, after in values.in_turn(x.views, entered):
            use = values.met(eqn.primitive.name, view, summed, batch)
            use = use._replace(
                inputs=use.inputs | before,
                outputs=use.outputs | after,
                groups=eqn.params.get("feature_group_count", 1),
            )
            if use.experts and values.in_blocks(other, theirs, beside):
                blocks, outputs = use.experts, use.outputs | use.experts
                use = use._replace(experts=NONE, outputs=outputs, blocks=blocks)
            if x.data and not (rows and use.inputs):
                self._use("gather", Value((view,), True), x.carries)
                continue
            at = self._record(view, use, other.carries)
            self.before[view.path] |= other.past - {view.path}
            self.followed |= other.past
            if other.features is not None:
                ours = self.features.numbered(view).axes
                pairs = zip(summed, theirs)
                self.features.align((ours[a], other.features.axes[b]) for a, b in pairs)
            if use.outputs:
                made = [_only(mark, beside) for mark in other.made]
                self._link(_only(view, batch), made)
            yield at, view

    def _of_parameters(self, eqn: Any, left: Value, right: Value) -> Value:
        """A product in which no data is: one matrix made of both, unless one goes in as data."""
        summed, _ = axes.summed_and_batch(eqn)
        sides, paths = (left, right), [{v.path for v in x.views} for x in (left, right)]
        known = eqn.primitive.name == "dot_general" and not (paths[0] & paths[1])
        if known and all(paths):
            for i, x in enumerate(sides):
                if self._goes_in(x, sides[1 - i], summed[i], summed[1 - i]):
                    if len(paths[i]) == 1:  # what is made of several is an activation
                        self.guessed |= {*itertools.product(paths[i], paths[1 - i])}
                    as_data = self._use(AS_DATA, x, x.carries)._replace(data=True)
                    pair = (as_data, right) if i == 0 else (left, as_data)
                    return self._product(eqn, *pair)
        views = []
        for i, view in [(0, v) for v in left.views] + [(1, v) for v in right.views]:
            if not known:
                self._record(view, Use(f"{UNKNOWN} product of parameters"))
                continue
            gone = labels(view.axes[axis] for axis in summed[i])
            links = {(a, path) for a in gone for path in paths[1 - i] or {""}}
            new = axes.product(view.axes, eqn, i)
            views.append(view._replace(axes=new, links=view.links | links))
        return Value(tuple(views))

    def _goes_in(self, x: Value, other: Value, ours: Any, theirs: Any) -> bool:
        """Whether `x` goes into the matrix `other` as data does, which sums over a width.

        What it makes is no width, and what `other` makes is.
        """

        def widths(x: Value, summed: Any) -> tuple[bool, bool]:
            gone = [(v.path, labels(v.axes[i] for i in summed)) for v in x.views]
            free = [
                (v.path, labels(v.axes) - set_) for v, (_, set_) in zip(x.views, gone)
            ]
            return self._grow(gone), self._grow(free)

        if self.grown is not None:
            sums, makes = widths(x, ours)
            return sums and not makes and widths(other, theirs)[1]
        n = max(axes.size(v.axes[i]) for v in x.views for i in ours) if ours else 0
        free = values.free(x, ours), values.free(other, theirs)
        return free[0] < n and free[0] < free[1]

    def _grow(self, places: Iterable[tuple[str, Labels]]) -> bool:
        return any(found & (self.grown or {}).get(path, NONE) for path, found in places)

    def scan_(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The results of a scan: of layers, if what a row makes meets the next, or of experts."""
        turns = Turns(eqn)
        consts, carry, rows = turns.split([self._settled(x) for x in xs])
        self.loops += 1
        loop = self.loops

        def run(serial: bool) -> list[Value]:
            entries = [values.entry(x, loop, serial) for x in rows]

            def body(carry: list[Value]) -> list[Value]:
                carry = [x._replace(carries=x.carries | {loop}) for x in carry]
                out = self.run(eqn.params["jaxpr"], [*consts, *carry, *entries])
                return [x._replace(carries=x.carries - {loop}) for x in out]

            return self._loop(body, [*carry])

        before = self._saved()
        out = run(serial=False)
        if loop in self.serial:  # layers, each of which sees what the one before made
            vars(self).update(before)
            out = run(serial=True)
        n = turns.carried
        return out[:n] + [values.stacked(x, eqn.params["length"]) for x in out[n:]]

    def while_(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The results of a loop."""
        xs = [self._settled(x) for x in xs]
        first = eqn.params["cond_nconsts"]
        second = first + eqn.params["body_nconsts"]

        def body(carry: list[Value]) -> list[Value]:
            self.run(eqn.params["cond_jaxpr"], [*xs[:first], *carry])
            return self.run(eqn.params["body_jaxpr"], [*xs[first:second], *carry])

        return self._loop(body, xs[second:])

    def cond_(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The results of whichever branch."""
        xs = [self._settled(x) for x in xs]
        results = [self.run(branch, xs[1:]) for branch in eqn.params["branches"]]
        chosen = Value(data=xs[0].data)
        return [functools.reduce(self._join, each, chosen) for each in zip(*results)]

    def _settled(self, x: Value) -> Value:
        """`x` on the way into or out of a loop, where what it is a sum of is forgotten."""
        return self.shared(self.lay(self.settle(x)))

    def _loop(
        self, body: Callable[[list[Value]], list[Value]], carry: list[Value]
    ) -> list[Value]:
        """What `body` returns once its first results are what it was given."""
        while True:
            before = self._saved()
            out = [self._settled(x) for x in body(carry)]
            if carry == [self._join(x, y) for x, y in zip(carry, out)]:
                return out
            vars(self).update(before)  # what was found of a false beginning
            carry = [self._join(x, y) for x, y in zip(carry, out)]

    def _join(self, x: Value, y: Value) -> Value:
        """What is known of an array that may be either."""
        data = x.data or y.data
        carries = values.carries((x, y))
        if data:
            x, y = (v if v.data else self._use("select_n", v, carries) for v in (x, y))
            x, y = self.lay(x), self.lay(y)
        number = x.number if x.number == y.number else None
        views = tuple(dict.fromkeys(x.views + y.views))
        return Value(
            views,
            data,
            number,
            sources=values.sources((x, y)),
            past=values.past((x, y)),
            features=self.features.merged(v.features for v in (x, y) if v.features),
            carries=carries,
        )

    def _saved(self) -> dict[str, Any]:
        """All that was found out."""
        return {k: copy.deepcopy(x) for k, x in vars(self).items() if k != "grown"}


def _gains(xs: list[Value]) -> list[Value]:
    """`xs`, of which parameters with fewer axes than those they multiply are gains of them."""

    def spread(x: Value) -> int:
        return max((sum(bool(labels([a])) for a in v.axes) for v in x.views), default=0)

    most = max(map(spread, xs))
    return [
        x._replace(views=tuple(v._replace(gain=True) for v in x.views))
        if 0 < spread(x) < most
        else x
        for x in xs
    ]


def _are_rows(x: Value, summed: Iterable[int]) -> bool:
    """Whether all that is left of what was looked up is summed over."""
    gone = labels(view.axes[i] for view in x.views for i in summed)
    return all(labels(view.axes) - view.looked <= gone for view in x.views)


def _only(view: View, chosen: Iterable[int]) -> View:
    return view._replace(axes=tuple(view.axes[i] for i in chosen))
