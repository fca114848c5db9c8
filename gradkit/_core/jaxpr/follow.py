"""What a model does with each parameter: followed from equation to equation of its jaxpr.

An array that is a parameter, whole or rearranged, is a `Value` with views. An array that depends
on the example is data. Where the two meet, the parameter is used, and its axes say how. A number
that multiplies data is a factor of what the data is made of, or of what it goes into.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core.jaxpr import axes, values
from gradkit._core.jaxpr.axes import NONE, TAKES, Contraction, Labels, labels
from gradkit._core.jaxpr.primitives import ENTRYWISE, MOVES, PRODUCTS, SUMS
from gradkit._core.jaxpr.trace import Trace
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
) -> Trace:
    """What `f(params, *args)` does with each array in `params`; the rest is data.

    Where it is known which axes have `grown` with the model, it tells the order of parameters
    that are multiplied before they meet data; else their lengths tell.
    """
    leaves, structure = jax.tree.flatten(params)
    arrays = {i: x for i, x in enumerate(leaves) if is_array(x)}
    of_arrays = functools.partial(_of_arrays, f, leaves, structure)
    program = jax.make_jaxpr(of_arrays)(arrays, *args)
    paths = leaf_paths(params)
    views = [View(paths[i], axes.whole(x.shape)) for i, x in arrays.items()]
    data = [Value(data=True)] * (len(program.jaxpr.invars) - len(views))
    follower = Follower(grown)
    results = follower.run(needed(program), [*(Value((v,)) for v in views), *data])
    for x in sorted(results, key=lambda x: not x.data):
        follower.output(x)
    follower.trace.propagate()
    return follower.trace


def _of_arrays(
    f: Callable[..., Any],
    leaves: Sequence[Any],
    structure: Any,
    given: Mapping[int, Any],
    *args: Any,
) -> list[jax.Array]:
    """The arrays that `f` returns, of parameters whose arrays are `given`, by number."""
    params = structure.unflatten(given.get(i, x) for i, x in enumerate(leaves))
    found = jax.tree.leaves(f(params, *args))
    return [x for x in found if isinstance(x, jax.Array)]


class Follower(Walker[Value]):
    """Writes down in a trace what each equation shows."""

    def __init__(self, grown: Mapping[str, Labels] | None):
        """With nothing found; `grown` are axes, by path."""
        self.grown = grown
        self.trace = Trace()

    def constant(self, x: Any) -> Value:
        """A number, or an array of them."""
        kind = getattr(x, "dtype", type(x))
        is_complex = jnp.issubdtype(kind, np.complexfloating)
        real = jnp.issubdtype(kind, np.number) and not is_complex
        is_number = real and np.size(x) == 1
        return Value(number=float(np.asarray(x).item()) if is_number else None)

    def shared(self, x: Value) -> Value:
        """What several read is a sum of its own to none of them."""
        return x._replace(origins=frozenset(), terms=(), pairs=False)

    def parts(self, program: Any, eqn: Any, xs: list[Value]) -> list[Value]:
        """Follow what a program does with the parts of its operands that a device has."""
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
                self.trace.ranked |= NONE.union(*(x.sources for x in xs))
        return self._entrywise(eqn, xs)

    def output(self, x: Value) -> None:
        """`x` is what the model returns; what meets no data, beside what does, goes in as such."""
        if x.data:
            self.trace.assign(self.as_embedding(x))
        elif self.trace.uses:
            self._use(AS_DATA, x, x.carries)

    def as_embedding(self, x: Value) -> Value:
        """`x` as plain data, if data it is: what was looked up is an embedding."""
        return self._use("gather", x, x.carries) if x.data and x.views else x

    def _use(
        self, by: str, x: Value, near: frozenset[int], beside: View | None = None
    ) -> Value:
        """Use `x` entry by entry, beside data of the carries `near`; what is left of it."""
        found = []
        looked = [view for view in x.views if view.looked_up]
        for view, before, after in values.in_order(x.views, looked):
            outputs = labels(view.axes) - view.looked_up
            if by not in (*ENTRYWISE, AS_DATA) and len(outputs) > 1:
                use = Use(f"{UNKNOWN} {by}")
            else:
                way = "dot_general" if before else "gather" if looked else by
                inputs, over = view.looked_up | before, values.over(view, beside)
                use = Use(way, inputs, outputs | after, over=over)
            found.append(self.trace.record(view, use, near))
        if not found:
            return x
        paths = frozenset(view.path for view in x.views)
        return x._replace(
            views=(),
            origins=frozenset(found),
            sources=x.sources | paths if looked else x.sources,
            past=x.past | paths,
            features=self.trace.merged(map(values.placed, x.views)),
        )

    def _entrywise(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The results of an equation that works on entries one by one, adds or moves them."""
        name, shapes = eqn.primitive.name, [x.aval.shape for x in eqn.outvars]
        if name not in MOVES:
            xs = [self.as_embedding(x) for x in xs]
        data = [x for x in xs if x.data]
        if not data:
            return self._of_constants(eqn, xs, shapes)
        marks = [mark for x in data for mark in x.made]
        made = [values.moved_all(marks, eqn, shape) for shape in shapes]
        met = [
            self._beside(eqn, x, xs, made[0], shapes[0])
            for x in xs
            if x.views and not x.data
        ]
        upstream = NONE.union(*(x.past for x in data))
        for path in NONE.union(*(x.past for x in met)):
            self.trace.before[path] |= upstream - {path}
        base = Value(
            data=True,
            sources=NONE.union(*(x.sources for x in data)),
            past=NONE.union(*(x.past for x in (*data, *met))),
            carries=NONE.union(*(x.carries for x in xs)),
            pieces=self.trace.pieces(name, (x.pieces for x in data)),
            reduced=values.reduced(eqn, data),
            normalized=values.normalized(name, xs),
            pairs=values.pairs(eqn, data),
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
        results = [
            base._replace(
                views=self._views(eqn, data, shape),
                made=moved,
                features=self._features(eqn, data + met, shape),
            )
            for shape, moved in zip(shapes, made)
        ]
        return [self._cut(eqn, i, data, x) for i, x in enumerate(results)]

    def _beside(
        self,
        eqn: Any,
        x: Value,
        xs: Sequence[Value],
        made: Sequence[View],
        shape: Sequence[int],
    ) -> Value:
        """What is left of parameters `x` that meet the data among `xs`, entry by entry."""
        for view in values.moved_all(x.views, eqn, shape):
            self.trace.link(view, made)
        over = self._features(eqn, [y for y in xs if y.data], shape)
        near = NONE.union(*(y.carries for y in xs))
        return self._use(eqn.primitive.name, x, near, over)

    def _of_constants(
        self, eqn: Any, xs: list[Value], shapes: Sequence[Any]
    ) -> list[Value]:
        """The results where no operand is data: parameters still, and numbers."""
        name, number = eqn.primitive.name, values.number(eqn, xs)
        xs = [values.scaled(name, xs, x) for x in xs]
        if name in ("mul", "div"):
            xs = _gains(xs)
        results = [
            Value(self._views(eqn, xs, shape), number=number) for shape in shapes
        ]
        return [self._cut(eqn, i, xs, x) for i, x in enumerate(results)]

    def _multiplied(
        self, eqn: Any, xs: list[Value], met: list[Value], out: Value
    ) -> Value:
        """`out`, with what is known of the factors, origins and score of the operands."""
        name = eqn.primitive.name
        data = [x for x in (xs[1:] if name == "select_n" else xs) if x.data]
        terms = [x for x in data if x.past or x.factors or len(data) == 1]
        numbers = [values.multiplied(name, xs, x) for x in terms]
        known = [number for number in numbers if number is not None]
        if not terms or len(known) < len(terms):
            for x in data:
                self.trace.assign(x)
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
                self.trace.assign(x)
        else:
            out = out._replace(factors=first.factors, score=first.score)
        sums = [*terms, *met]
        if all(x.origins for x in sums) and not example:
            out = out._replace(origins=NONE.union(*(x.origins for x in sums)))
        return out if sums[1:] else out._replace(terms=first.terms, pairs=first.pairs)

    def _times(
        self, name: str, xs: list[Value], x: Value, number: float, out: Value
    ) -> Value:
        """`out`, if it is `x` times a number, or times parameters too."""
        for other in (y for y in xs if y is not x and y.data):
            self.trace.assign(other)
        factors = x.factors
        if name == "div" and x.reduced and math.isclose(1 / number, x.reduced):
            number = 1.0  # a mean is no sum that grows
        if x.score is not None:
            old = self.trace.scores[x.score]
            self.trace.scores[x.score] = old._replace(scale=old.scale * number)
        elif number != 1:
            self.trace.events += 1
            factors = (*factors, Factor(self.trace.events, number, x.origins))
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
        summed = [
            (view, at, labels(view.axes[i] for i in gone)) for view, at in x.terms
        ]
        found = [(view, at, inputs) for view, at, inputs in summed if inputs]
        for view, at, inputs in found:
            self.trace.add_up(view.path, at, inputs, x.past)
        if found:
            uses = frozenset(at for _, at, _ in found)
            paths = frozenset(view.path for view, _, _ in found)
            for at, f in itertools.product(uses, out.factors):
                self.trace.factors[at] |= {(f.event, f.number)}
            return out._replace(factors=(), origins=uses, sources=paths, reduced=0)
        if x.pairs:
            count = math.prod(eqn.invars[0].aval.shape[i] for i in gone)
            return self._scored(count, [x], out)._replace(reduced=0)
        return out

    def _scored(self, count: int, xs: Sequence[Value], out: Value) -> Value:
        """`out`, a sum of `count` products of activations."""
        scale = math.prod(f.number for x in xs for f in x.factors)
        normal = any(x.normalized for x in xs)
        self.trace.scores.append(
            Score(count, scale, NONE.union(*(x.sources for x in xs)), normal)
        )
        return out._replace(score=len(self.trace.scores) - 1, factors=())

    def _cut(
        self,
        eqn: Any,
        i: int,
        xs: Sequence[Value],
        out: Value,
        starts: Sequence[float | None] = (),
    ) -> Value:
        """`out`, the `i`-th result, told what it is a piece of if it takes entries of one array."""
        if len(xs) != 1 or eqn.primitive.name not in TAKES:
            return out
        (x,), shape = xs, eqn.invars[0].aval.shape
        views = [*map(values.placed, x.views), *([x.features] if x.features else [])]
        cut = self.trace.cut(views, axes.taken(eqn, i, starts), shape)
        return out._replace(pieces=out.pieces | cut)

    def _views(
        self, eqn: Any, xs: Sequence[Value], shape: Sequence[int]
    ) -> tuple[View, ...]:
        """The views of `xs` in the result: none in mere statistics of a parameter."""
        views = [view for x in xs for view in x.views]
        if not views or eqn.primitive.name.startswith(STATISTICS):
            return ()
        moved = values.moved_all(views, eqn, shape)
        for view in views:
            if view.path not in {v.path for v in moved}:
                self.trace.record(view, Use(f"{UNKNOWN} {eqn.primitive.name}"))
        return moved

    def _features(
        self, eqn: Any, xs: Sequence[Value], shape: Sequence[int]
    ) -> View | None:
        """Which axes of parameters the axes of a result are, as the operands say."""
        views = [x.features for x in xs if x.features is not None]
        return self.trace.merged(values.moved_all(views, eqn, shape))

    def _lookup(self, eqn: Any, x: Value, *indices: Value) -> Value:
        """Entries of `x`, by indices."""
        x, chosen = self.as_embedding(x), any(i.data for i in indices)
        fixed = all(i.number is not None for i in indices)
        out = x._replace(
            views=tuple(values.looked_up(v, eqn, chosen, fixed) for v in x.views),
            data=x.data or chosen,
            made=(),
            features=x.features and values.looked_up(x.features, eqn, True, fixed),
            past=NONE.union(*(y.past for y in (x, *indices))),
            carries=NONE.union(*(y.carries for y in (x, *indices))),
            terms=(),
        )
        return self._cut(eqn, 0, [x], out, [i.number for i in indices])

    def _product(self, eqn: Any, left: Value, right: Value) -> Value:
        """The result of a product, in which parameters are used if one side is data."""
        product = axes.contraction(eqn)
        if not (left.data or right.data):
            return self._of_parameters(eqn, product, left, right)
        both = [
            self._as_activation(x, gone) if x.views else x
            for x, gone in zip((left, right), product.summed)
        ]
        if all(x.data and x.views for x in both):
            both = [
                self.as_embedding(x) if _are_rows(x, gone) else x
                for x, gone in zip(both, product.summed)
            ]
        met: dict[int, tuple[int, View]] = {}  # by the number of a use, side and view
        for side in (0, 1):
            if both[side].views:
                met |= self._meet(eqn, product, side, both)
        if met:  # of several, the first
            self.trace.assign(both[1 - met[min(met)][0]], min(met))
        kept, shape = product.kept, eqn.outvars[0].aval.shape
        views = [values.through(v, kept[side], shape) for side, v in met.values()]
        made, features = [], []
        for x, axes_of in zip(both, kept):
            made += [values.through(mark, axes_of, shape) for mark in x.made]
            if x.features is not None:
                features.append(values.through(x.features, axes_of, shape))
        paths = frozenset(view.path for view in views)
        result = Value(
            data=True,
            origins=frozenset(met),
            sources=paths or NONE.union(*(x.sources for x in both)),
            past=paths.union(*(x.past for x in both)),
            made=values.marks(eqn, [*made, *views]),
            features=self.trace.merged([*features, *map(values.placed, views)]),
            carries=NONE.union(*(x.carries for x in both)),
        )
        if met:
            return result
        left, right = both
        if not (left.data and right.data):
            x = left if left.data else right
            return result._replace(factors=x.factors, origins=x.origins)
        self.trace.followed |= left.past | right.past
        count = math.prod(eqn.invars[0].aval.shape[i] for i in product.summed[0])
        return self._scored(count, both, result)

    def _as_activation(self, x: Value, summed: Iterable[int]) -> Value:
        """`x`, unless it is a product of constants and of a parameter that is summed over."""
        if not any(path == "" for view in x.views for _, path in view.links):
            return x
        if not labels(view.axes[i] for view in x.views for i in summed):
            return x
        return self._use(AS_DATA, x, x.carries)._replace(data=True)

    def _meet(
        self, eqn: Any, product: Contraction, side: int, both: Sequence[Value]
    ) -> dict[int, tuple[int, View]]:
        """Write down how the parameters on one side of a product meet the other.

        The uses by number, each with the side and its view; no use where the parameters that
        were looked up meet parameters.
        """
        x, other = both[side], both[1 - side]
        summed, theirs = product.summed[side], product.summed[1 - side]
        batch, beside = product.batch[side], product.batch[1 - side]
        rows = other.data and not other.views  # which may meet what x looked up
        entered = (v for v in x.views if labels(v.axes[i] for i in summed))
        found = {}
        for view, before, after in values.in_order(x.views, entered):
            use = values.use_of(eqn.primitive.name, view, side, product)
            use = use._replace(
                inputs=use.inputs | before,
                outputs=use.outputs | after,
                groups=eqn.params.get("feature_group_count", 1),
            )
            if use.experts and values.in_blocks(other, 1 - side, product):
                blocks, outputs = use.experts, use.outputs | use.experts
                use = use._replace(experts=NONE, outputs=outputs, blocks=blocks)
            if x.data and not (rows and use.inputs):
                self._use("gather", Value((view,), True), x.carries)
                continue
            at = self.trace.record(view, use, other.carries)
            self.trace.before[view.path] |= other.past - {view.path}
            self.trace.followed |= other.past
            if other.features is not None:
                ours, data = values.placed(view).axes, other.features.axes
                self.trace.align((ours[a], data[b]) for a, b in zip(summed, theirs))
            if use.outputs and other.made:
                made = [_only(mark, beside) for mark in other.made]
                self.trace.link(_only(view, batch), made)
            found[at] = side, view
        return found

    def _of_parameters(
        self, eqn: Any, product: Contraction, left: Value, right: Value
    ) -> Value:
        """A product in which no data is: one matrix made of both, unless one goes in as data."""
        summed, sides = product.summed, (left, right)
        paths = [{v.path for v in x.views} for x in sides]
        known = eqn.primitive.name == "dot_general" and not (paths[0] & paths[1])
        for i, x in enumerate(sides if known and all(paths) else ()):
            if self._goes_in(x, sides[1 - i], summed[i], summed[1 - i]):
                if len(paths[i]) == 1:  # what is made of several is an activation
                    self.trace.guessed |= {*itertools.product(paths[i], paths[1 - i])}
                as_data = self._use(AS_DATA, x, x.carries)._replace(data=True)
                pair = (as_data, right) if i == 0 else (left, as_data)
                return self._product(eqn, *pair)
        views, shape = [], eqn.outvars[0].aval.shape
        for i, view in [(0, v) for v in left.views] + [(1, v) for v in right.views]:
            if not known:
                self.trace.record(view, Use(f"{UNKNOWN} product of parameters"))
                continue
            gone = labels(view.axes[axis] for axis in summed[i])
            links = {(a, path) for a in gone for path in paths[1 - i] or {""}}
            new = values.through(view, product.kept[i], shape).axes
            views.append(view._replace(axes=new, links=view.links | links))
        return Value(tuple(views))

    def _goes_in(self, x: Value, other: Value, ours: Any, theirs: Any) -> bool:
        """Whether `x` goes into the matrix `other` as data does, which sums over a width.

        What it makes is no width, and what `other` makes is.
        """
        if self.grown is not None:
            sums, makes = self._widths(x, ours)
            return sums and not makes and self._widths(other, theirs)[1]
        n = max(axes.size(v.axes[i]) for v in x.views for i in ours) if ours else 0
        free = values.free(x, ours), values.free(other, theirs)
        return free[0] < n and free[0] < free[1]

    def _widths(self, x: Value, summed: Sequence[int]) -> tuple[bool, bool]:
        """Whether parameters sum over what has grown, and make what has."""
        gone = [(v, labels(v.axes[i] for i in summed)) for v in x.views]
        grown = [(self.grown or {}).get(v.path, NONE) for v in x.views]
        sums = any(found & widths for (_, found), widths in zip(gone, grown))
        makes = any(
            (labels(v.axes) - found) & widths for (v, found), widths in zip(gone, grown)
        )
        return sums, makes

    def scan(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The results of a scan: of layers, if what a row makes meets the next, or of experts."""
        turns = Turns(eqn)
        consts, carry, rows = turns.split([self._at_boundary(x) for x in xs])
        self.trace.loops += 1
        loop, before, out = self.trace.loops, self.trace, []
        program, n = eqn.params["jaxpr"], turns.carried
        for serial in (False, True):
            self.trace = before.copy()
            entries = [values.entry(x, loop, serial) for x in rows]
            turn = functools.partial(self._turn, program, loop, consts, entries)
            out = self._loop(turn, carry)
            if loop not in self.trace.serial:
                break  # no row sees what the one before made: if they are any, experts
        return out[:n] + [values.stacked(x, eqn.params["length"]) for x in out[n:]]

    def _turn(
        self,
        program: Any,
        loop: int,
        consts: Sequence[Value],
        entries: Sequence[Value],
        carry: Sequence[Value],
    ) -> list[Value]:
        """One turn of the scan that is the `loop` of this number."""
        carry = [x._replace(carries=x.carries | {loop}) for x in carry]
        out = self.run(program, [*consts, *carry, *entries])
        return [x._replace(carries=x.carries - {loop}) for x in out]

    def while_loop(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The results of a loop."""
        xs = [self._at_boundary(x) for x in xs]
        n = eqn.params["cond_nconsts"] + eqn.params["body_nconsts"]
        return self._loop(functools.partial(self._round, eqn, xs[:n]), xs[n:])

    def _round(
        self, eqn: Any, consts: Sequence[Value], carry: Sequence[Value]
    ) -> list[Value]:
        """One round of a while loop, its condition and its body."""
        first = eqn.params["cond_nconsts"]
        self.run(eqn.params["cond_jaxpr"], [*consts[:first], *carry])
        return self.run(eqn.params["body_jaxpr"], [*consts[first:], *carry])

    def cond(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The results of whichever branch."""
        xs = [self._at_boundary(x) for x in xs]
        results = [self.run(branch, xs[1:]) for branch in eqn.params["branches"]]
        chosen = Value(data=xs[0].data)
        return [functools.reduce(self._join, each, chosen) for each in zip(*results)]

    def _at_boundary(self, x: Value) -> Value:
        """`x` on the way into or out of a loop, where what it is a sum of is forgotten."""
        return self.shared(self.trace.assign(self.as_embedding(x)))

    def _loop(
        self,
        body: Callable[[Sequence[Value]], list[Value]],
        carry: Sequence[Value],
    ) -> list[Value]:
        """What `body` returns once its first results are what it was given."""
        while True:
            before = self.trace.copy()
            out = [self._at_boundary(x) for x in body(carry)]
            either = [self._join(x, y) for x, y in zip(carry, out)]
            if either == [*carry]:
                return out
            self.trace = before  # without what was found of a false beginning
            carry = [self._join(x, y) for x, y in zip(carry, out)]

    def _join(self, x: Value, y: Value) -> Value:
        """What is known of an array that may be either."""
        data = x.data or y.data
        carries = x.carries | y.carries
        if data:
            x, y = (v if v.data else self._use("select_n", v, carries) for v in (x, y))
            x, y = self.trace.assign(x), self.trace.assign(y)
        return Value(
            tuple(dict.fromkeys(x.views + y.views)),
            data,
            x.number if x.number == y.number else None,
            sources=x.sources | y.sources,
            past=x.past | y.past,
            features=self.trace.merged(v.features for v in (x, y) if v.features),
            carries=carries,
        )


def _gains(xs: list[Value]) -> list[Value]:
    """`xs`, of which parameters with fewer axes than those they multiply are gains of them."""
    ranks = [max(map(values.rank, x.views), default=0) for x in xs]
    return [
        x._replace(views=tuple(v._replace(gain=True) for v in x.views))
        if 0 < n < max(ranks)
        else x
        for x, n in zip(xs, ranks)
    ]


def _are_rows(x: Value, summed: Iterable[int]) -> bool:
    """Whether all that is left of what was looked up is summed over."""
    gone = labels(view.axes[i] for view in x.views for i in summed)
    return all(labels(view.axes) - view.looked_up <= gone for view in x.views)


def _only(view: View, chosen: Iterable[int]) -> View:
    return view._replace(axes=tuple(view.axes[i] for i in chosen))
