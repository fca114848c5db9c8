"""Activations of a function, such as the result of every product with a parameter.

An interpreter evaluates the jaxpr one equation at a time, also inside calls, scans and branches,
so that the function needs no hooks. Equations that no result depends on are skipped. A
`while_loop` or a kernel is run as a whole: its inner activations are not recorded.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import versions
from gradkit._core.jaxpr import axes
from gradkit._core.jaxpr.axes import NONE, Labels
from gradkit._core.jaxpr.primitives import (
    LINEAR,
    MOVES,
    NUMBERS,
    PRODUCTS,
    SCALES,
    SUMS,
)
from gradkit._core.jaxpr.walk import ScanLayout, Walker, opened, without_dead_code
from gradkit._core.paths import leaf_paths


class Origin(NamedTuple):
    """The newest site, parameter or input that an array depends on; a constant has none.

    `activations` says what a site is.
    """

    order: int  # number of a site, from 1; -1 for a parameter, 0 for another input
    name: str
    # whether the array is the site's activation, perhaps with its entries rearranged
    is_activation: bool = False


class PendingProduct(NamedTuple):
    """An entrywise product, which is a matrix product if only `reduce_sum` reads it."""

    name: str
    varying: Labels  # axes along which both factors vary
    site: Origin | None = None  # site that the parameter was taken to scale
    activation_before: Any = None  # activation of `site` before it was scaled


class TracedArray(NamedTuple):
    """An array, and what it depends on."""

    x: Any
    origin: Origin | None = None
    varying: Labels = NONE  # axes along which its entries may differ
    pending: PendingProduct | None = None


def activations(
    f: Callable[..., Any], params: Any, *args: Any
) -> list[tuple[str, jax.Array]]:
    """The name and activation of every site in `f(params, *args)`, in order.

    A site is a product with a parameter, named by its path; a product of two activations,
    named by both; or a sum of two, named `+` and the newer. A repeated name is numbered.
    Products are matrix products, convolutions, lookups, and sums over products of entries.
    A number or a parameter that scales a product or is added to it, such as a bias, belongs to
    the product. Inside a scan the activations of all iterations are stacked; those of a branch
    not taken are zero.
    """
    program = without_dead_code(jax.make_jaxpr(f)(params, *args))
    arrays = jax.tree.leaves((params, args))
    origins = [Origin(-1, path or "params") for path in leaf_paths(params)]
    origins += [Origin(0, "input")] * (len(arrays) - len(origins))
    inputs = [
        TracedArray(x, o, _long_axes(jnp.shape(x))) for x, o in zip(arrays, origins)
    ]
    recorder = Recorder(program, inputs, itertools.count(1))
    _, arrays_of_sites = recorder(arrays)
    counts: collections.Counter[str] = collections.Counter()
    named_activations = []
    for site, activation in zip(recorder.sites, arrays_of_sites):
        counts[site.name] += 1
        again = f" ({counts[site.name]})" * (counts[site.name] > 1)
        named_activations.append((site.name + again, activation))
    return named_activations


class Recorder(Walker[TracedArray]):
    """A jaxpr as a function that also returns the activations of its sites.

    A call sets `sites`, and `results`, the `TracedArray` of each output.
    """

    def __init__(
        self, program: Any, inputs: Sequence[TracedArray], order: Iterator[int]
    ):
        """`inputs` describe the arguments of calls; `order` numbers sites."""
        self.program, self.inputs, self.order = program, [*inputs], order
        self.activations: dict[Origin, Any] = {}
        self.results: Sequence[TracedArray] = []

    def __call__(self, xs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Evaluate the jaxpr on `xs`; return its outputs, and the activations."""
        self.activations = {}
        values = (value._replace(x=x) for value, x in zip(self.inputs, xs))
        self.results = self.run(self.program, values)
        return [value.x for value in self.results], [*self.activations.values()]

    @property
    def sites(self) -> list[Origin]:
        """The sites, in the order of the activations."""
        return list(self.activations)

    def settle(self, carries: range) -> None:
        """Give the inputs at `carries` the origins that they have after some iterations.

        Only carries that start as constants or parameters change. Iterated to a fixed point.
        """
        avals = [v.aval for v in opened(self.program).invars]
        shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
        unsettled = [i for i in carries if not _depends_on_input(self.inputs[i])]
        while unsettled:
            # a new lambda, since JAX would have cached the result for `self`
            jax.eval_shape(lambda xs: self(xs), shapes)
            ends = dict(zip(carries, self.results))
            settled = {
                i: _detached(ends[i]) for i in unsettled if _depends_on_input(ends[i])
            }
            self.inputs = [settled.get(i, value) for i, value in enumerate(self.inputs)]
            unsettled = [i for i in unsettled if i not in settled] if settled else []

    def constant(self, x: Any) -> TracedArray:
        """Wrap a literal, or a constant of a jaxpr."""
        return TracedArray(x, varying=_long_axes(jnp.shape(x)))

    def shared(self, x: TracedArray) -> TracedArray:
        """`x` without its pending product, since a sum is not its only reader."""
        return x._replace(pending=None)

    def per_device(
        self, program: Any, eqn: Any, xs: list[TracedArray]
    ) -> list[TracedArray]:
        """Run a `shard_map` as one primitive."""
        del program
        return self.primitive(eqn, xs)

    def while_loop(self, eqn: Any, xs: list[TracedArray]) -> list[TracedArray]:
        """Run a loop as one primitive."""
        return self.primitive(eqn, xs)

    def primitive(self, eqn: Any, xs: list[TracedArray]) -> list[TracedArray]:
        """Evaluate an equation without an inner jaxpr; record its output if it is a site."""
        kind = eqn.primitive.name
        out = versions.bind(eqn, [value.x for value in xs])
        outs = [*out] if eqn.primitive.multiple_results else [out]
        if kind in MOVES:
            return [_moved(value, eqn, x) for value, x in zip(xs, outs)]
        if not outs:  # as of a print
            return []
        name = self._sum_name(eqn, xs) or _site_name(kind, xs)
        newest = max((v.origin for v in xs if v.origin is not None), default=None)
        pending = None if name else self._pending_product(eqn, xs, jnp.shape(outs[0]))
        if name is not None:
            newest = Origin(next(self.order), name, is_activation=True)
            self.activations[newest] = outs[0]
        elif newest is not None and newest.is_activation:
            if _is_scaled(kind, xs, newest):
                self.activations[newest] = outs[0]
            else:
                newest = newest._replace(is_activation=False)
        return [
            TracedArray(x, newest, _varying_axes(eqn, xs, x), pending) for x in outs
        ]

    def _sum_name(self, eqn: Any, xs: list[TracedArray]) -> str | None:
        """Name of the site, if the equation completes a matrix product; else None."""
        pending = xs[0].pending if eqn.primitive.name == "reduce_sum" else None
        if pending is None or not pending.varying & {*eqn.params["axes"]}:
            return None
        if pending.site is not None:  # undo: the parameter did not scale that site
            self.activations[pending.site] = pending.activation_before
        return pending.name

    def _pending_product(
        self, eqn: Any, xs: list[TracedArray], shape: Sequence[int]
    ) -> PendingProduct | None:
        """The entrywise product in a result of `shape`, if a sum may complete it; else None."""
        kind = eqn.primitive.name
        for x in (x for x in xs if x.pending):
            linear = kind in LINEAR or kind == "mul" or (kind == "div" and x is xs[0])
            if linear and not any(other.origin for other in xs if other is not x):
                return _move_pending(x, eqn, shape)
        name = _entrywise_name(xs) if kind == "mul" else None
        varying = frozenset.intersection(*(v.varying for v in xs)) if name else NONE
        if name is None or not varying:
            return None
        for site in (v.origin for v in xs if v.origin and v.origin.is_activation):
            return PendingProduct(name, varying, site, self.activations[site])
        return PendingProduct(name, varying)

    def scan(self, eqn: Any, xs: list[TracedArray]) -> list[TracedArray]:
        """Run a scan; record the stacked activations of its body."""
        layout = ScanLayout(eqn)
        consts, carry, rows = layout.split([*map(_detached, xs)])
        carry = [
            value._replace(varying=_long_axes(jnp.shape(value.x))) for value in carry
        ]
        slices = [value._replace(varying=_row_axes(value.varying)) for value in rows]
        recorder = Recorder(eqn.params["jaxpr"], [*consts, *carry, *slices], self.order)
        recorder.settle(layout.carries)
        last, (ys, activations) = jax.lax.scan(
            functools.partial(
                _scan_body, recorder, [v.x for v in consts], layout.num_carry
            ),
            [value.x for value in carry],
            [value.x for value in rows],
            eqn.params["length"],
            eqn.params["reverse"],
        )
        self.activations |= zip(recorder.sites, activations)
        return [*map(_leave_scope, [*last, *ys], recorder.results)]

    def cond(self, eqn: Any, xs: list[TracedArray]) -> list[TracedArray]:
        """Run the branch taken; the activations of the others are zeros."""
        index, *operands = xs
        detached, arrays = [*map(_detached, operands)], [value.x for value in operands]
        bodies = [Recorder(b, detached, self.order) for b in eqn.params["branches"]]
        shapes = [jax.eval_shape(lambda xs, b=b: b(xs)[1], arrays) for b in bodies]
        zeros = [[jnp.zeros(s.shape, s.dtype) for s in shape] for shape in shapes]
        arms = [
            functools.partial(_branch, body, i, zeros) for i, body in enumerate(bodies)
        ]
        outs, activations = jax.lax.switch(index.x, arms, *arrays)
        self.activations |= zip(
            (site for body in bodies for site in body.sites), activations
        )
        results = zip(*(body.results for body in bodies))
        newest = [
            max(ends, key=lambda v: v.origin or Origin(-2, "")) for ends in results
        ]
        return [*map(_leave_scope, outs, newest)]


def _scan_body(
    body: Recorder, consts: list[Any], num_carry: int, carry: Any, row: Any
) -> Any:
    """Body of a scan: (new carry, (scanned outputs, activations))."""
    outs, activations = body([*consts, *carry, *row])
    return outs[:num_carry], (outs[num_carry:], activations)


def _branch(body: Recorder, i: int, zeros: list[list[Any]], *xs: Any) -> Any:
    """Branch `i`: its results, and the activations of all branches, `zeros` for the others."""
    outs, activations = body(xs)
    all_activations = [*zeros[:i], activations, *zeros[i + 1 :]]
    return outs, [*itertools.chain.from_iterable(all_activations)]


def _long_axes(shape: Sequence[int]) -> Labels:
    """All axes longer than 1."""
    return frozenset(i for i, n in enumerate(shape) if n > 1)


def _row_axes(varying: Labels) -> Labels:
    """Varying axes of one row of an array, renumbered without the first axis."""
    return frozenset(i - 1 for i in varying if i)


def _track_axes(
    varying: Labels, old: Sequence[int], eqn: Any, new: Sequence[int]
) -> Labels:
    """The axes `varying` of an operand of shape `old`, carried to a result of shape `new`."""
    old_axes = [axes.axis(frozenset({i}) & varying, n) for i, n in enumerate(old)]
    moved = axes.move(old_axes, eqn, new)
    if moved is None:
        return _long_axes(new)
    return frozenset(i for i, axis in enumerate(moved) if axes.labels([axis]))


def _varying_axes(eqn: Any, xs: list[TracedArray], out: Any) -> Labels:
    """Axes along which the entries of a result may differ."""
    new = jnp.shape(out)
    if not xs or eqn.primitive.name not in NUMBERS:
        return _long_axes(new)
    return NONE.union(*(_track_axes(v.varying, jnp.shape(v.x), eqn, new) for v in xs))


def _moved(value: TracedArray, eqn: Any, x: Any) -> TracedArray:
    """`x`, a rearrangement of `value`, with its origin."""
    old, new = jnp.shape(value.x), jnp.shape(x)
    varying = _track_axes(value.varying, old, eqn, new)
    return TracedArray(x, value.origin, varying, _move_pending(value, eqn, new))


def _move_pending(
    value: TracedArray, eqn: Any, new: Sequence[int]
) -> PendingProduct | None:
    """Pending product of an operand, carried to a result of shape `new`; None if there is none."""
    pending = value.pending
    varying = (
        _track_axes(pending.varying, jnp.shape(value.x), eqn, new) if pending else NONE
    )
    return pending and pending._replace(varying=varying)


def _detached(value: TracedArray) -> TracedArray:
    """`value`, no longer as an activation or a pending product."""
    origin = value.origin and value.origin._replace(is_activation=False)
    return value._replace(origin=origin, pending=None)


def _leave_scope(x: Any, end: TracedArray) -> TracedArray:
    """Result `x` of a scan or branch, with the origin it has inside."""
    return _detached(end)._replace(x=x, varying=_long_axes(jnp.shape(x)))


def _depends_on_input(value: TracedArray) -> bool:
    """Whether `value` depends on an input, not on parameters and constants alone."""
    return value.origin is not None and value.origin.order >= 0


def _is_scaled(kind: str, xs: list[TracedArray], site: Origin) -> bool:
    """Whether an equation scales the activation of `site` by, or adds to it, numbers or parameters."""
    if kind not in SUMS | SCALES or (kind == "div" and xs[0].origin != site):
        return False
    others = [value for value in xs if value.origin != site]
    belong = (not v.varying if v.origin is None else v.origin.order < 0 for v in others)
    return bool(others) and all(belong)


def _entrywise_name(xs: list[TracedArray]) -> str | None:
    """Name of an entrywise product with a parameter, or of two activations; else None."""
    parameters, inputs = _names_by_kind(xs)
    if parameters:
        return parameters[0] if inputs else None
    return (
        _join_names([*inputs.values()])
        if len(inputs) == 2 and 0 not in inputs
        else None
    )


def _site_name(kind: str, xs: list[TracedArray]) -> str | None:
    """Name of the site that primitive `kind` makes of these operands; None if it is no site."""
    parameters, inputs = _names_by_kind(xs)
    if inputs and (kind in PRODUCTS or (kind == "gather" and parameters)):
        return parameters[0] if parameters else _join_names([*inputs.values()])
    if len(inputs) == 2 and kind in SUMS - {"sub"}:
        return f"+ {[*inputs.values()][1].removeprefix('+ ')}"
    return None


def _names_by_kind(xs: list[TracedArray]) -> tuple[list[str], dict[int, str]]:
    """Names of the parameters, and names of inputs and sites by their order, oldest first."""
    origins = [value.origin for value in xs if value.origin is not None]
    inputs = {o.order: o.name for o in origins if o.order >= 0}
    return [o.name for o in origins if o.order < 0], dict(sorted(inputs.items()))


def _join_names(names: list[str]) -> str:
    """Join names with ` · `, the common folder written once."""
    parts = [name.split("/") for name in names]
    folders = zip(*(part[:-1] for part in parts))
    shared = len([*itertools.takewhile(lambda names: len({*names}) == 1, folders)])
    ends = " · ".join("/".join(part[shared:]) for part in parts)
    return "/".join([*parts[0][:shared], ends])
