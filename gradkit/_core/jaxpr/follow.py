"""How a model uses each parameter: abstract interpretation of its jaxpr.

Abstract values. `Value` describes one array. It is one of three kinds, or a mix of the first two:

- made of parameters: each `ParameterView` labels the axes of the array with the axes of one
  parameter, through any reshape, transpose, slice or product of parameters;
- data: the array depends on the example. Its value names the parameters upstream, and the
  parameter axes that its own axes are outputs of (`features`);
- constant: `number`, if all entries equal one known number (constant propagation).

Data with views are rows that were looked up in a table and not yet used.

Transfer functions. `Follower` visits the equations in program order and maps the values of the
operands to the values of the results: `_product`, `_lookup`, and `_entrywise` for all other
primitives. Where a parameter meets data, the transfer function records a `Use` in the `Trace`:
the axes that are summed over (inputs), the axes that are kept (outputs), and the axes that number
layers or experts. From there on the result is data.

Control flow. Calls are inlined. The results of branches are joined (`_join`, the lattice join:
union of views, `or` of data, a number only where both agree). The body of a loop is interpreted
again and again, with its carry joined to its results, to a fixed point (`_fixed_point`). The trace
is reset before each repetition, so that it holds the uses of the fixed point only.

Factors. A number that multiplies data is kept as a `Factor`. If the data is a sum of uses, the
factor is assigned to them. If not, it is assigned to the next use that the data goes into.
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
    ParameterView,
    Score,
    Use,
    Value,
)
from gradkit._core.jaxpr.walk import ScanLayout, Walker, opened, without_dead_code
from gradkit._core.numbers import is_array
from gradkit._core.paths import leaf_paths


def follow(
    f: Callable[..., Any],
    params: Any,
    *args: Any,
    grown: Mapping[str, Labels] | None = None,
) -> Trace:
    """Trace how `f(params, *args)` uses each array in `params`; `args` are data.

    `grown` holds the axes, by path, that grow with the model. It decides the order of parameters
    that are multiplied before they meet data. Without it the lengths of their axes decide.
    """
    leaves, structure = jax.tree.flatten(params)
    arrays = {i: x for i, x in enumerate(leaves) if is_array(x)}
    of_arrays = functools.partial(_array_outputs, f, leaves, structure)
    program = jax.make_jaxpr(of_arrays)(arrays, *args)
    paths = leaf_paths(params)
    views = [ParameterView(paths[i], axes.whole(x.shape)) for i, x in arrays.items()]
    data = [Value(data=True)] * (len(program.jaxpr.invars) - len(views))
    follower = Follower(grown)
    results = follower.run(
        without_dead_code(program), [*(Value((v,)) for v in views), *data]
    )
    for x in sorted(results, key=lambda x: not x.data):
        follower.output(x)
    follower.trace.propagate()
    return follower.trace


def _array_outputs(
    f: Callable[..., Any],
    leaves: Sequence[Any],
    structure: Any,
    arrays: Mapping[int, Any],
    *args: Any,
) -> list[jax.Array]:
    """Call `f` with `arrays` in place of leaves, by index; return the arrays in its output."""
    params = structure.unflatten(arrays.get(i, x) for i, x in enumerate(leaves))
    outputs = jax.tree.leaves(f(params, *args))
    return [x for x in outputs if isinstance(x, jax.Array)]


class Follower(Walker[Value]):
    """The transfer functions; `trace` collects the uses of parameters."""

    def __init__(self, grown: Mapping[str, Labels] | None):
        """Begin with an empty trace; `grown` holds axes of parameters, by path."""
        self.grown = grown
        self.trace = Trace()

    def constant(self, x: Any) -> Value:
        """Value of a constant; it has a `number` only if the constant is one real number."""
        kind = getattr(x, "dtype", type(x))
        is_complex = jnp.issubdtype(kind, np.complexfloating)
        real = jnp.issubdtype(kind, np.number) and not is_complex
        is_number = real and np.size(x) == 1
        return Value(number=float(np.asarray(x).item()) if is_number else None)

    def shared(self, x: Value) -> Value:
        """Value of an array that several equations read.

        If one of them applies a factor, that is not a factor of the uses that the array sums. Nor
        may one of them turn an entrywise product into a matrix product.
        """
        return x._replace(origins=frozenset(), products=(), activation_product=False)

    def per_device(self, program: Any, eqn: Any, xs: list[Value]) -> list[Value]:
        """Interpret a program that each device runs on its shards of the operands."""
        local = map(values.resized, xs, [x.aval.shape for x in opened(program).invars])
        out = self.run(program, local)
        return [values.resized(x, v.aval.shape) for x, v in zip(out, eqn.outvars)]

    def primitive(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """Transfer function of an equation without an inner jaxpr."""
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
        """Finish `x`, an output of the model: assign its factors, or use its parameters as data."""
        if x.data:
            self.trace.assign(self.as_embedding(x))
        elif self.trace.uses:
            self._record_use(AS_DATA, x, x.carries)

    def as_embedding(self, x: Value) -> Value:
        """`x` with its lookup recorded as a use of an embedding, if `x` is looked-up rows."""
        return self._record_use("gather", x, x.carries) if x.data and x.views else x

    def _record_use(
        self,
        by: str,
        x: Value,
        near: frozenset[int],
        beside: ParameterView | None = None,
    ) -> Value:
        """Record an entrywise use of the parameters of `x`; return `x` without views.

        `near` are the loops whose carries the data depends on, `beside` the features of the data.
        """
        uses = []
        table_views = [view for view in x.views if view.looked_up]
        for view, before, after in values.in_product_order(x.views, table_views):
            outputs = labels(view.axes) - view.looked_up
            if by not in (*ENTRYWISE, AS_DATA) and len(outputs) > 1:
                use = Use(f"{UNKNOWN} {by}")
            else:
                primitive = "dot_general" if before else "gather" if table_views else by
                inputs = view.looked_up | before
                over = values.shared_with_data(view, beside)
                use = Use(primitive, inputs, outputs | after, over=over)
            uses.append(self.trace.record(view, use, near))
        if not uses:
            return x
        paths = frozenset(view.path for view in x.views)
        return x._replace(
            views=(),
            origins=frozenset(uses),
            sources=x.sources | paths if table_views else x.sources,
            ancestors=x.ancestors | paths,
            features=self.trace.merged(map(values.placed, x.views)),
        )

    def _entrywise(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """Transfer function of an equation that maps entries, adds them or moves them."""
        name, shapes = eqn.primitive.name, [x.aval.shape for x in eqn.outvars]
        if name not in MOVES:
            xs = [self.as_embedding(x) for x in xs]
        data = [x for x in xs if x.data]
        if not data:
            return self._without_data(eqn, xs, shapes)
        marks = [mark for x in data for mark in x.made]
        made = [values.moved_all(marks, eqn, shape) for shape in shapes]
        used = [
            self._meet_entrywise(eqn, x, xs, made[0], shapes[0])
            for x in xs
            if x.views and not x.data
        ]
        upstream = NONE.union(*(x.ancestors for x in data))
        for path in NONE.union(*(x.ancestors for x in used)):
            self.trace.upstream[path] |= upstream - {path}
        common = Value(
            data=True,
            sources=NONE.union(*(x.sources for x in data)),
            ancestors=NONE.union(*(x.ancestors for x in (*data, *used))),
            carries=NONE.union(*(x.carries for x in xs)),
            pieces=self.trace.pieces(name, (x.pieces for x in data)),
            reduced=values.reduced(eqn, data),
            normalized=values.normalized(name, xs),
            activation_product=values.activation_product(eqn, data),
        )
        common = self._with_factors(eqn, xs, used, common)
        if name == "reduce_sum":
            common = self._summed(eqn, data[0], common)
        if name == "mul" and len(used) == 1 and len(data) == 1:
            views = next(x.views for x in xs if x.views)
            common = common._replace(
                products=tuple(zip(views, sorted(used[0].origins)))
            )
        if common.products:
            moved = [(values.moved(v, eqn, shapes[0]), at) for v, at in common.products]
            common = common._replace(products=tuple((v, at) for v, at in moved if v))
        results = [
            common._replace(
                views=self._move_views(eqn, data, shape),
                made=moved,
                features=self._move_features(eqn, data + used, shape),
            )
            for shape, moved in zip(shapes, made)
        ]
        return [self._record_cut(eqn, i, data, x) for i, x in enumerate(results)]

    def _meet_entrywise(
        self,
        eqn: Any,
        x: Value,
        xs: Sequence[Value],
        made: Sequence[ParameterView],
        shape: Sequence[int],
    ) -> Value:
        """Record the use of parameters `x` beside the data in `xs`; return `x` without views."""
        for view in values.moved_all(x.views, eqn, shape):
            self.trace.link(view, made)
        over = self._move_features(eqn, [y for y in xs if y.data], shape)
        near = NONE.union(*(y.carries for y in xs))
        return self._record_use(eqn.primitive.name, x, near, over)

    def _without_data(
        self, eqn: Any, xs: list[Value], shapes: Sequence[Any]
    ) -> list[Value]:
        """Transfer function where no operand is data: the results are parameters or numbers."""
        name, number = eqn.primitive.name, values.number(eqn, xs)
        xs = [values.scaled(name, xs, x) for x in xs]
        if name in ("mul", "div"):
            xs = _mark_gains(xs)
        results = [
            Value(self._move_views(eqn, xs, shape), number=number) for shape in shapes
        ]
        return [self._record_cut(eqn, i, xs, x) for i, x in enumerate(results)]

    def _with_factors(
        self, eqn: Any, xs: list[Value], used: list[Value], out: Value
    ) -> Value:
        """Give `out` the factors, origins and score of the operands, where it is linear in them."""
        name = eqn.primitive.name
        data = [x for x in (xs[1:] if name == "select_n" else xs) if x.data]
        operands = [x for x in data if x.ancestors or x.factors or len(data) == 1]
        numbers = [values.multiplied(name, xs, x) for x in operands]
        factors = [number for number in numbers if number is not None]
        if not operands or len(factors) < len(operands):
            for x in data:
                self.trace.assign(x)
            return out
        if name in ("mul", "div"):
            return self._scaled(name, xs, operands[0], factors[0], out)
        first, *others = operands
        adds_example = len(data) > len(operands)
        if any(
            (x.factors, x.score) != (first.factors, first.score) for x in others
        ) or (used or (adds_example and name in SUMS)):
            unassigned = any(not f.origins for x in operands for f in x.factors)
            # A sum with an unassigned factor has an unknown size: no score is judged by it.
            out = out._replace(normalized=out.normalized or unassigned)
            for x in operands:
                self.trace.assign(x)
        else:
            out = out._replace(factors=first.factors, score=first.score)
        addends = [*operands, *used]
        if all(x.origins for x in addends) and not adds_example:
            out = out._replace(origins=NONE.union(*(x.origins for x in addends)))
        return (
            out
            if addends[1:]
            else out._replace(
                products=first.products,
                activation_product=first.activation_product,
            )
        )

    def _scaled(
        self, name: str, xs: list[Value], x: Value, number: float, out: Value
    ) -> Value:
        """Give the factors of `x` to `out`, which is `x` times `number` or times parameters."""
        for other in (y for y in xs if y is not x and y.data):
            self.trace.assign(other)
        factors = x.factors
        if name == "div" and x.reduced and math.isclose(1 / number, x.reduced):
            number = 1.0  # a mean does not grow with the count
        if x.score is not None:
            old = self.trace.scores[x.score]
            self.trace.scores[x.score] = old._replace(scale=old.scale * number)
        elif number != 1:
            self.trace.event_count += 1
            factors = (*factors, Factor(self.trace.event_count, number, x.origins))
        bare = not any(y.views for y in xs if y is not x)
        return out._replace(
            factors=factors,
            origins=x.origins,
            score=x.score,
            products=x.products if bare else (),
            activation_product=x.activation_product and bare,
        )

    def _summed(self, eqn: Any, x: Value, out: Value) -> Value:
        """Complete `out`, the sum of `x`, as a matrix product if `x` is an entrywise product.

        `mul` followed by `reduce_sum` is a `dot_general`, of a parameter and data or of two
        activations.
        """
        reduced_axes = eqn.params["axes"]
        candidates = [
            (view, use, labels(view.axes[i] for i in reduced_axes))
            for view, use in x.products
        ]
        products = [(view, use, inputs) for view, use, inputs in candidates if inputs]
        for view, use, inputs in products:
            self.trace.add_up(view.path, use, inputs, x.ancestors)
        if products:
            uses = frozenset(use for _, use, _ in products)
            paths = frozenset(view.path for view, _, _ in products)
            for use, f in itertools.product(uses, out.factors):
                self.trace.factors[use] |= {(f.event, f.number)}
            return out._replace(factors=(), origins=uses, sources=paths, reduced=0)
        if x.activation_product:
            count = math.prod(eqn.invars[0].aval.shape[i] for i in reduced_axes)
            return self._with_score(count, [x], out)._replace(reduced=0)
        return out

    def _with_score(self, count: int, xs: Sequence[Value], out: Value) -> Value:
        """Register `out`, a sum of `count` products of activations, as a score."""
        scale = math.prod(f.number for x in xs for f in x.factors)
        normal = any(x.normalized for x in xs)
        self.trace.scores.append(
            Score(count, scale, NONE.union(*(x.sources for x in xs)), normal)
        )
        return out._replace(score=len(self.trace.scores) - 1, factors=())

    def _record_cut(
        self,
        eqn: Any,
        i: int,
        xs: Sequence[Value],
        out: Value,
        starts: Sequence[float | None] = (),
    ) -> Value:
        """Record the entries of the operand in the `i`-th result; return `out` with them."""
        if len(xs) != 1 or eqn.primitive.name not in TAKES:
            return out
        (x,), shape = xs, eqn.invars[0].aval.shape
        views = [*map(values.placed, x.views), *([x.features] if x.features else [])]
        cut = self.trace.cut(views, axes.taken(eqn, i, starts), shape)
        return out._replace(pieces=out.pieces | cut)

    def _move_views(
        self, eqn: Any, xs: Sequence[Value], shape: Sequence[int]
    ) -> tuple[ParameterView, ...]:
        """Carry the views of `xs` to the result, of `shape`; none if it is a statistic."""
        views = [view for x in xs for view in x.views]
        if not views or eqn.primitive.name.startswith(STATISTICS):
            return ()
        moved = values.moved_all(views, eqn, shape)
        for view in views:
            if view.path not in {v.path for v in moved}:
                self.trace.record(view, Use(f"{UNKNOWN} {eqn.primitive.name}"))
        return moved

    def _move_features(
        self, eqn: Any, xs: Sequence[Value], shape: Sequence[int]
    ) -> ParameterView | None:
        """Carry the features of `xs` to the result, of `shape`, and merge them."""
        views = [x.features for x in xs if x.features is not None]
        return self.trace.merged(values.moved_all(views, eqn, shape))

    def _lookup(self, eqn: Any, x: Value, *indices: Value) -> Value:
        """Transfer function of a gather or dynamic slice: entries of `x`, by indices."""
        x, chosen = self.as_embedding(x), any(i.data for i in indices)
        fixed = all(i.number is not None for i in indices)
        out = x._replace(
            views=tuple(values.looked_up(v, eqn, chosen, fixed) for v in x.views),
            data=x.data or chosen,
            made=(),
            features=x.features and values.looked_up(x.features, eqn, True, fixed),
            ancestors=NONE.union(*(y.ancestors for y in (x, *indices))),
            carries=NONE.union(*(y.carries for y in (x, *indices))),
            products=(),
        )
        return self._record_cut(eqn, 0, [x], out, [i.number for i in indices])

    def _product(self, eqn: Any, left: Value, right: Value) -> Value:
        """Transfer function of a product; parameters are used if the other operand is data."""
        product = axes.contraction(eqn)
        if not (left.data or right.data):
            return self._product_of_parameters(eqn, product, left, right)
        operands = [
            self._as_activation(x, summed) if x.views else x
            for x, summed in zip((left, right), product.summed)
        ]
        if all(x.data and x.views for x in operands):
            operands = [
                self.as_embedding(x) if _sums_whole_rows(x, summed) else x
                for x, summed in zip(operands, product.summed)
            ]
        used: dict[int, tuple[int, ParameterView]] = {}  # side and view, by use number
        for side in (0, 1):
            if operands[side].views:
                used |= self._record_products(eqn, product, side, operands)
        if used:  # the first of several uses takes the factors
            self.trace.assign(operands[1 - used[min(used)][0]], min(used))
        kept, shape = product.kept, eqn.outvars[0].aval.shape
        views = [values.through(v, kept[side], shape) for side, v in used.values()]
        made, features = [], []
        for x, axes_of in zip(operands, kept):
            made += [values.through(mark, axes_of, shape) for mark in x.made]
            if x.features is not None:
                features.append(values.through(x.features, axes_of, shape))
        paths = frozenset(view.path for view in views)
        result = Value(
            data=True,
            origins=frozenset(used),
            sources=paths or NONE.union(*(x.sources for x in operands)),
            ancestors=paths.union(*(x.ancestors for x in operands)),
            made=values.product_axes(eqn, [*made, *views]),
            features=self.trace.merged([*features, *map(values.placed, views)]),
            carries=NONE.union(*(x.carries for x in operands)),
        )
        if used:
            return result
        left, right = operands
        if not (left.data and right.data):
            x = left if left.data else right
            return result._replace(factors=x.factors, origins=x.origins)
        self.trace.feeds_products |= left.ancestors | right.ancestors
        count = math.prod(eqn.invars[0].aval.shape[i] for i in product.summed[0])
        return self._with_score(count, operands, result)

    def _as_activation(self, x: Value, summed: Iterable[int]) -> Value:
        """`x`, as data if it is a constant matrix times a parameter, summed over its axes."""
        if not any(path == "" for view in x.views for _, path in view.links):
            return x
        if not labels(view.axes[i] for view in x.views for i in summed):
            return x
        return self._record_use(AS_DATA, x, x.carries)._replace(data=True)

    def _record_products(
        self, eqn: Any, product: Contraction, side: int, both: Sequence[Value]
    ) -> dict[int, tuple[int, ParameterView]]:
        """Record the uses of the parameters in one operand of a product.

        Return the side and view of each, by use number. Looked-up rows that meet parameters are
        recorded as an embedding and not returned.
        """
        x, other = both[side], both[1 - side]
        summed, other_summed = product.summed[side], product.summed[1 - side]
        batch, beside = product.batch[side], product.batch[1 - side]
        meets_data = other.data and not other.views
        entry_views = (v for v in x.views if labels(v.axes[i] for i in summed))
        recorded = {}
        for view, before, after in values.in_product_order(x.views, entry_views):
            use = values.use_of(eqn.primitive.name, view, side, product)
            use = use._replace(
                inputs=use.inputs | before,
                outputs=use.outputs | after,
                groups=eqn.params.get("feature_group_count", 1),
            )
            if use.experts and values.in_blocks(other, 1 - side, product):
                blocks, outputs = use.experts, use.outputs | use.experts
                use = use._replace(experts=NONE, outputs=outputs, blocks=blocks)
            if x.data and not (meets_data and use.inputs):
                self._record_use("gather", Value((view,), True), x.carries)
                continue
            use_number = self.trace.record(view, use, other.carries)
            self.trace.upstream[view.path] |= other.ancestors - {view.path}
            self.trace.feeds_products |= other.ancestors
            if other.features is not None:
                own_axes, data_axes = values.placed(view).axes, other.features.axes
                self.trace.align(
                    (own_axes[a], data_axes[b]) for a, b in zip(summed, other_summed)
                )
            if use.outputs and other.made:
                made = [_select_axes(mark, beside) for mark in other.made]
                self.trace.link(_select_axes(view, batch), made)
            recorded[use_number] = side, view
        return recorded

    def _product_of_parameters(
        self, eqn: Any, product: Contraction, left: Value, right: Value
    ) -> Value:
        """Transfer function of a product of parameters: one matrix with the views of both.

        If one operand has the shape of data, it is used as data instead.
        """
        summed, sides = product.summed, (left, right)
        paths = [{v.path for v in x.views} for x in sides]
        is_known = eqn.primitive.name == "dot_general" and not (paths[0] & paths[1])
        for i, x in enumerate(sides if is_known and all(paths) else ()):
            if self._acts_as_data(x, sides[1 - i], summed[i], summed[1 - i]):
                if len(paths[i]) == 1:  # a product of several is an activation
                    self.trace.guessed_orders |= {
                        *itertools.product(paths[i], paths[1 - i])
                    }
                as_data = self._record_use(AS_DATA, x, x.carries)._replace(data=True)
                pair = (as_data, right) if i == 0 else (left, as_data)
                return self._product(eqn, *pair)
        views, shape = [], eqn.outvars[0].aval.shape
        for i, view in [(0, v) for v in left.views] + [(1, v) for v in right.views]:
            if not is_known:
                self.trace.record(view, Use(f"{UNKNOWN} product of parameters"))
                continue
            summed_labels = labels(view.axes[axis] for axis in summed[i])
            links = {(a, path) for a in summed_labels for path in paths[1 - i] or {""}}
            new = values.through(view, product.kept[i], shape).axes
            views.append(view._replace(axes=new, links=view.links | links))
        return Value(tuple(views))

    def _acts_as_data(
        self, x: Value, other: Value, summed: Any, other_summed: Any
    ) -> bool:
        """Whether `x` enters its product with the matrix `other` as data enters it.

        Then the product sums over a width, and `other`, not `x`, has a width as its output.
        """
        if self.grown is not None:
            sums, makes = self._grown_widths(x, summed)
            return sums and not makes and self._grown_widths(other, other_summed)[1]
        longest = (
            max(axes.size(v.axes[i]) for v in x.views for i in summed) if summed else 0
        )
        free = values.free_size(x, summed), values.free_size(other, other_summed)
        return free[0] < longest and free[0] < free[1]

    def _grown_widths(self, x: Value, summed: Sequence[int]) -> tuple[bool, bool]:
        """Whether an axis that has grown is summed over, and whether one is kept."""
        summed_labels = [(v, labels(v.axes[i] for i in summed)) for v in x.views]
        grown = [(self.grown or {}).get(v.path, NONE) for v in x.views]
        sums = any(inputs & widths for (_, inputs), widths in zip(summed_labels, grown))
        makes = any(
            (labels(v.axes) - inputs) & widths
            for (v, inputs), widths in zip(summed_labels, grown)
        )
        return sums, makes

    def scan(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """Transfer function of a scan, over experts or over layers.

        It is interpreted as a map over experts first. If the trace shows that the output of one
        row meets the next row, through the carry, it is interpreted again as a scan over layers.
        """
        scan_layout = ScanLayout(eqn)
        consts, carry, rows = scan_layout.split([self._at_boundary(x) for x in xs])
        self.trace.loop_count += 1
        loop, before, out = self.trace.loop_count, self.trace, []
        program, num_carry = eqn.params["jaxpr"], scan_layout.num_carry
        for serial in (False, True):
            self.trace = before.copy()
            entries = [values.loop_slice(x, loop, serial) for x in rows]
            body = functools.partial(self._scan_body, program, loop, consts, entries)
            out = self._fixed_point(body, carry)
            if loop not in self.trace.serial_loops:
                break  # rows are independent: experts
        return out[:num_carry] + [
            values.stacked(x, eqn.params["length"]) for x in out[num_carry:]
        ]

    def _scan_body(
        self,
        program: Any,
        loop: int,
        consts: Sequence[Value],
        entries: Sequence[Value],
        carry: Sequence[Value],
    ) -> list[Value]:
        """Interpret the body of a scan once; `loop` is its number."""
        carry = [x._replace(carries=x.carries | {loop}) for x in carry]
        out = self.run(program, [*consts, *carry, *entries])
        return [x._replace(carries=x.carries - {loop}) for x in out]

    def while_loop(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """Transfer function of a while loop."""
        xs = [self._at_boundary(x) for x in xs]
        n = eqn.params["cond_nconsts"] + eqn.params["body_nconsts"]
        return self._fixed_point(
            functools.partial(self._while_body, eqn, xs[:n]), xs[n:]
        )

    def _while_body(
        self, eqn: Any, consts: Sequence[Value], carry: Sequence[Value]
    ) -> list[Value]:
        """Interpret the condition and the body of a while loop once."""
        first = eqn.params["cond_nconsts"]
        self.run(eqn.params["cond_jaxpr"], [*consts[:first], *carry])
        return self.run(eqn.params["body_jaxpr"], [*consts[first:], *carry])

    def cond(self, eqn: Any, xs: list[Value]) -> list[Value]:
        """Transfer function of a branch: the join of the results of all."""
        xs = [self._at_boundary(x) for x in xs]
        results = [self.run(branch, xs[1:]) for branch in eqn.params["branches"]]
        chosen = Value(data=xs[0].data)
        return [functools.reduce(self._join, each, chosen) for each in zip(*results)]

    def _at_boundary(self, x: Value) -> Value:
        """`x` as it enters or leaves a loop or branch: factors assigned, sums forgotten."""
        return self.shared(self.trace.assign(self.as_embedding(x)))

    def _fixed_point(
        self,
        body: Callable[[Sequence[Value]], list[Value]],
        carry: Sequence[Value],
    ) -> list[Value]:
        """Interpret `body` until joining its results to its `carry` changes nothing.

        Return the results of the last round. The trace of every earlier round is discarded.
        """
        while True:
            before = self.trace.copy()
            out = [self._at_boundary(x) for x in body(carry)]
            joined = [self._join(x, y) for x, y in zip(carry, out)]
            if joined == [*carry]:
                return out
            self.trace = before  # discard what this round recorded
            carry = [self._join(x, y) for x, y in zip(carry, out)]

    def _join(self, x: Value, y: Value) -> Value:
        """The least value that covers both `x` and `y` (lattice join)."""
        data = x.data or y.data
        carries = x.carries | y.carries
        if data:
            x, y = (
                v if v.data else self._record_use("select_n", v, carries)
                for v in (x, y)
            )
            x, y = self.trace.assign(x), self.trace.assign(y)
        return Value(
            tuple(dict.fromkeys(x.views + y.views)),
            data,
            x.number if x.number == y.number else None,
            sources=x.sources | y.sources,
            ancestors=x.ancestors | y.ancestors,
            features=self.trace.merged(v.features for v in (x, y) if v.features),
            carries=carries,
        )


def _mark_gains(xs: list[Value]) -> list[Value]:
    """Mark the parameters that have fewer axes than the parameter they multiply as gains."""
    ranks = [max(map(values.parameter_rank, x.views), default=0) for x in xs]
    return [
        x._replace(views=tuple(v._replace(gain=True) for v in x.views))
        if 0 < rank < max(ranks)
        else x
        for x, rank in zip(xs, ranks)
    ]


def _sums_whole_rows(x: Value, summed: Iterable[int]) -> bool:
    """Whether a product sums over all axes of looked-up rows."""
    summed_labels = labels(view.axes[i] for view in x.views for i in summed)
    return all(labels(view.axes) - view.looked_up <= summed_labels for view in x.views)


def _select_axes(view: ParameterView, chosen: Iterable[int]) -> ParameterView:
    """`view` of the `chosen` axes of its array."""
    return view._replace(axes=tuple(view.axes[i] for i in chosen))
