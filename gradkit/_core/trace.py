"""What a model does with each parameter: followed from equation to equation of its jaxpr.

An array that is a parameter, whole or rearranged, is a `Value` with views. An array that depends
on the example is data. Where the two meet, the parameter is used, and its axes say how.
"""

import copy
import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import jax

from gradkit._core import axes, tree, values
from gradkit._core.axes import Labels, labels
from gradkit._core.jaxpr import called, opened, with_more_axes
from gradkit._core.primitives import ENTRYWISE, MOVES
from gradkit._core.values import UNKNOWN, Score, Use, Value, View

Place = tuple[str, int]  # a path, and an axis of the parameter there


def follow(program: Any, params: Any) -> "Trace":
    """What a jaxpr does with each leaf of `params`, its first arguments; the rest is data."""
    leaves = zip(tree.paths(params), jax.tree.leaves(params))
    views = [View(path, axes.whole(x.shape)) for path, x in leaves]
    data = [Value(data=True)] * (len(opened(program).invars) - len(views))
    trace = Trace()
    for x in trace.run(program, [*(Value((view,)) for view in views), *data]):
        trace.settle(x)
    trace.spread()
    return trace


class Trace:
    """What was found out so far."""

    def __init__(self) -> None:
        """Nothing."""
        self.uses: dict[str, set[Use]] = defaultdict(set)  # by path
        self.scores: list[Score] = []
        self.ranked: set[str] = set()  # paths whose products are ranked
        self.alike: set[frozenset[Place]] = set()  # axes that are one and the same
        self.side_by_side: set[Place] = set()  # axes of experts
        self.loops = 0  # so far
        self.serial: set[int] = set()  # loops whose rows meet what their rows made

    def spread(self) -> None:
        """Axes that are the same as one of experts are of experts."""
        found = self.side_by_side
        while more := {x for pair in self.alike if pair & found for x in pair - found}:
            found |= more

    def experts(self, path: str) -> Labels:
        """The axes of a parameter that number experts, as other parameters show."""
        return frozenset(axis for p, axis in self.side_by_side if p == path)

    def run(self, program: Any, args: Iterable[Value]) -> list[Value]:
        """Follow `args` through a jaxpr, closed or not, to its results."""
        jaxpr = opened(program)
        consts = map(values.constant, getattr(program, "consts", ()))
        known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args)))

        def read(x: Any) -> Value:
            return values.constant(x.val) if hasattr(x, "val") else known[x]

        for eqn in jaxpr.eqns:
            known.update(zip(eqn.outvars, self.equation(eqn, [*map(read, eqn.invars)])))
        return [read(x) for x in jaxpr.outvars]

    def equation(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """The results of one equation."""
        match eqn.primitive.name:
            case "scan" | "while" | "cond" as name:
                return getattr(self, f"_{name}")(eqn, [*map(self.settle, xs)])
            case "dot_general" | "ragged_dot_general" | "conv_general_dilated":
                return [self._product(eqn, *xs[:2])]
            case "gather" | "dynamic_slice":
                return [self._lookup(eqn, *xs)]
            case "optimization_barrier":
                return xs
            case _ if not eqn.outvars:
                return []
            case "top_k" | "approx_top_k" | "sort" | "argmax":
                self.ranked |= values.sources(xs)
        inner = called(eqn)
        if inner is None:
            return self._entrywise(eqn, xs)
        local = map(values.resized, xs, [x.aval.shape for x in opened(inner).invars])
        out = self.run(inner, local)
        return [values.resized(x, v.aval.shape) for x, v in zip(out, eqn.outvars)]

    def settle(self, x: Value) -> Value:
        """`x` as plain data, if data it is: what was looked up is an embedding."""
        return self._use("gather", x, x.carries) if x.data else x

    def _use(self, by: str, x: Value, near: frozenset[int]) -> Value:
        """Use `x` entry by entry, beside data of the carries `near`; what is left of it."""
        for view in x.views:
            outputs = labels(view.axes) - view.looked
            if by not in ENTRYWISE and len(outputs) > 1:
                self._record(view, Use(f"{UNKNOWN} {by}"), near)
                continue
            way = "dot_general" if view.summed else by
            self._record(view, Use(way, view.looked | view.summed, outputs), near)
        return x._replace(views=())

    def _record(self, view: View, use: Use, near: frozenset[int] = frozenset()) -> None:
        self.serial |= view.rows & near
        experts = use.experts | view.experts
        use = use._replace(layers=view.layers, experts=experts, picked=view.picked)
        self.uses[view.path].add(use)
        self.side_by_side |= {(view.path, axis) for axis in experts}

    def _entrywise(self, eqn: Any, xs: list[Value]) -> list[Value]:
        name, shapes = eqn.primitive.name, [x.aval.shape for x in eqn.outvars]
        if name not in MOVES:
            xs = [self.settle(x) for x in xs]
        if not any(x.data for x in xs):
            views = [self._views(eqn, xs, shape) for shape in shapes]
            return [Value(v, number=values.number(eqn, xs)) for v in views]
        marks = [mark for x in xs for mark in x.made]
        made = [values.moved_all(marks, eqn, shape) for shape in shapes]
        for x in (x for x in xs if not x.data):
            for view in values.moved_all(x.views, eqn, shapes[0]):
                self._link(view, made[0])
            self._use(name, x, values.carries(xs))
        views = [self._views(eqn, [x for x in xs if x.data], s) for s in shapes]
        factor, scale, score = values.scale(name, xs)
        if score is not None:
            old = self.scores[score]
            self.scores[score] = old._replace(scale=old.scale * factor)
        known = True, None, scale, values.sources(xs), score
        carries = values.carries(xs)
        return [Value(v, *known, m, carries) for v, m in zip(views, made)]

    def _views(self, eqn: Any, xs: list[Value], shape: Any) -> tuple[View, ...]:
        """The views of `xs` in the result: none in mere statistics of a parameter."""
        views = [view for x in xs for view in x.views]
        if eqn.primitive.name.startswith(("reduce_m", "reduce_s", "arg")):
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

    def _lookup(self, eqn: Any, x: Value, *indices: Value) -> Value:
        x, chosen = self.settle(x), any(i.data for i in indices)
        fixed = all(i.number is not None for i in indices)
        found = [values.looked_up(view, eqn, chosen, fixed) for view in x.views]
        data, carries = x.data or chosen, values.carries((x, *indices))
        return x._replace(views=tuple(found), data=data, made=(), carries=carries)

    def _product(self, eqn: Any, left: Value, right: Value) -> Value:
        summed, batch = axes.summed_and_batch(eqn)
        if not (left.data or right.data):
            return self._of_parameters(eqn, left, right)
        made, found = [], set()
        for i, x, other in ((0, left, right), (1, right, left)):
            rows = other.data and not other.views  # which may meet what x looked up
            made += [(i, mark) for mark in x.made]
            for view in x.views:
                use = values.met(eqn.primitive.name, view, summed[i], batch[i])
                if x.data and not (rows and use.inputs):
                    self._use("gather", Value((view,)), x.carries)
                    continue
                self._record(view, use, other.carries)
                found.add(view.path)
                made.append((i, view))
                ours, theirs = batch[i], batch[1 - i]
                self._link(_only(view, ours), [_only(m, theirs) for m in other.made])
        both = left, right
        result = Value(
            data=True,
            sources=frozenset(found) or values.sources(both),
            made=values.marks(made, eqn),
            carries=values.carries(both),
        )
        if found:
            return result
        if not (left.data and right.data):
            return result._replace(scale=(left if left.data else right).scale)
        count = math.prod(eqn.invars[0].aval.shape[i] for i in summed[0])
        self.scores.append(Score(count, left.scale * right.scale, result.sources))
        return result._replace(score=len(self.scores) - 1)

    def _of_parameters(self, eqn: Any, left: Value, right: Value) -> Value:
        """A product in which no data is: one matrix, made of both."""
        summed, _ = axes.summed_and_batch(eqn)
        views = []
        for i, view in [(0, v) for v in left.views] + [(1, v) for v in right.views]:
            gone = labels(view.axes[axis] for axis in summed[i])
            if eqn.primitive.name != "dot_general" or (view.summed and gone):
                self._record(view, Use(f"{UNKNOWN} product of parameters"))
            else:
                new = axes.product(view.axes, eqn, i)
                views.append(view._replace(axes=new, summed=view.summed | gone))
        return Value(tuple(views))

    def _scan(self, eqn: Any, xs: list[Value]) -> list[Value]:
        inside = opened(eqn.params["jaxpr"])
        carries = with_more_axes(inside.outvars, eqn.outvars, 0)
        begin = len(xs) - carries - with_more_axes(inside.invars, eqn.invars, 1)
        consts, carry, rows = xs[:begin], xs[begin:][:carries], xs[begin + carries :]
        self.loops += 1
        loop = self.loops

        def turns(serial: bool) -> list[Value]:
            entries = [values.entry(x, loop, serial) for x in rows]

            def body(carry: list[Value]) -> list[Value]:
                carry = [x._replace(carries=x.carries | {loop}) for x in carry]
                out = self.run(eqn.params["jaxpr"], [*consts, *carry, *entries])
                return [x._replace(carries=x.carries - {loop}) for x in out]

            return self._loop(body, carry)

        before = copy.deepcopy(vars(self))
        out = turns(serial=False)
        if loop in self.serial:  # layers, each of which sees what the one before made
            vars(self).update(before)
            out = turns(serial=True)
        stacked = [values.stacked(x, eqn.params["length"]) for x in out[carries:]]
        return out[:carries] + stacked

    def _while(self, eqn: Any, xs: list[Value]) -> list[Value]:
        first = eqn.params["cond_nconsts"]
        second = first + eqn.params["body_nconsts"]

        def body(carry: list[Value]) -> list[Value]:
            self.run(eqn.params["cond_jaxpr"], [*xs[:first], *carry])
            return self.run(eqn.params["body_jaxpr"], [*xs[first:second], *carry])

        return self._loop(body, xs[second:])

    def _cond(self, eqn: Any, xs: list[Value]) -> list[Value]:
        results = [self.run(branch, xs[1:]) for branch in eqn.params["branches"]]
        chosen = Value(data=xs[0].data)
        return [functools.reduce(self._join, each, chosen) for each in zip(*results)]

    def _loop(
        self, body: Callable[[list[Value]], list[Value]], carry: list[Value]
    ) -> list[Value]:
        """What `body` returns once its first results are what it was given."""
        while True:
            before = copy.deepcopy(vars(self))
            out = [self.settle(x) for x in body(carry)]
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
        number = x.number if x.number == y.number else None
        views = tuple(dict.fromkeys(x.views + y.views))
        sources = values.sources((x, y))
        return Value(views, data, number, sources=sources, carries=carries)


def _only(view: View, chosen: Iterable[int]) -> View:
    return view._replace(axes=tuple(view.axes[i] for i in chosen))
