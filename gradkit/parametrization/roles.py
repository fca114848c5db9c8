"""The role of a parameter: from what a model does with it, or by convention from its shape."""

import math
from collections.abc import Collection
from typing import NamedTuple

from gradkit._core.jaxpr import values
from gradkit._core.jaxpr.axes import NONE, Labels
from gradkit._core.jaxpr.primitives import PRODUCTS
from gradkit._core.jaxpr.trace import Trace
from gradkit._core.jaxpr.values import UNKNOWN, Use
from gradkit.parametrization.parameter import Parameter, expression


class Leaf(NamedTuple):
    """Shapes of a parameter at both sizes, and what the user declares about it."""

    path: str
    shape: tuple[int, ...]  # at the target size
    base: tuple[int, ...]
    changed: Labels  # axes that differ between base and delta, or base and target
    depth: float  # growth of the number of layers like its own
    role: str | None = None
    inputs: Labels | None = None
    stacks: Labels | None = None

    def error(self, must: str, got: object, advice: str) -> ValueError:
        """Make the error for a leaf that must `must`, but for which the trace shows `got`."""
        where = f"gradkit.infer_parametrization: leaf {self.path}"
        return ValueError(f"{where} must {must}, got {got}. {advice}")

    def other_role(self) -> str:
        """Advice for a leaf whose uses are ambiguous."""
        likely = "hidden" if len(self.shape) > 1 else "vector"
        return f"Say what it is: {self.say('roles', likely)}, or another role."

    def say(self, argument: str, value: object = ...) -> str:
        """Code of the argument that declares `value` for this leaf and its like."""
        text = "..." if value is ... else repr(value)
        return f"{argument}={{{expression(self.path)!r}: {text}}}"


class Reading(NamedTuple):
    """How a parameter meets data, and the role of its axes. `Labels` are its axes."""

    way: str  # how it meets data: "product", "lookup", "both" or "entries"
    inputs: Labels
    outputs: Labels
    layers: Labels
    experts: Labels
    why: str


# how parameters of a role meet data, if not in a product
WAYS = {"embedding": "lookup", "tied": "both", "vector": "entries"}


def parameter(leaf: Leaf, trace: Trace | None) -> Parameter:
    """Make the `Parameter` of a leaf, from its uses in `trace`, or by convention without one."""
    reading = by_convention(leaf) if trace is None else by_declaration(leaf, trace)
    ranked = trace is not None and leaf.path in trace.ranked
    stacks = reading.layers | reading.experts
    unread = leaf.changed - stacks - reading.inputs - reading.outputs
    if unread:
        raise leaf.error(
            f"use axis {values.listed(unread)}, which grows",
            reading.why,
            f"Say what it is: {leaf.say('inputs')} or {leaf.say('stacks')}.",
        )
    widths = leaf.changed - stacks
    growth = [leaf.shape[axis] / leaf.base[axis] for axis in reading.layers]
    axes = reading.inputs, reading.outputs, stacks, widths
    return Parameter(
        leaf.shape,
        leaf.base,
        leaf.role or _role(reading, widths, ranked),
        *(tuple(sorted(labels)) for labels in axes),
        depth=leaf.depth * math.prod(growth),
        why=reading.why,
    )


def by_convention(leaf: Leaf) -> Reading:
    """Reading from the shape: all axes but the last are inputs, and a vector has no inputs."""
    stacks = leaf.stacks or NONE
    axes = [axis for axis in range(len(leaf.shape)) if axis not in stacks]
    way = WAYS.get(leaf.role or "", "product" if axes[1:] else "entries")
    input_axes = {"product": axes[:-1], "lookup": axes[:1], "both": axes[:1]}.get(
        way, []
    )
    inputs = frozenset(input_axes) if leaf.inputs is None else leaf.inputs
    if leaf.inputs is None and len(inputs & leaf.changed) > 1:
        raise leaf.error(
            "have one growing input axis",
            f"{leaf.base} and {leaf.shape}",
            f"Say which axes are summed over: inputs={{{leaf.path!r}: (0,)}}, or pass "
            "apply and an example.",
        )
    is_declared = leaf.role or leaf.inputs is not None or leaf.stacks is not None
    growth = [leaf.shape[axis] / leaf.base[axis] for axis in axes]
    is_ambiguous = leaf.path.rpartition("/")[2] == "weight" and len({*growth}) > 1
    if not is_declared and is_ambiguous and axes[1:]:
        raise leaf.error(
            "have inputs that are known",
            f"{leaf.base} and {leaf.shape}, under a name by which torch and Equinox keep "
            "[out, in], and tables of rows",
            f"Pass apply and an example, or say {leaf.say('inputs', (1,))} or "
            f"{leaf.say('roles', 'embedding')}.",
        )
    experts = stacks if leaf.role == "expert" else NONE
    why = "declared" if is_declared else "convention: the last axis is the output"
    outputs = frozenset(axes) - inputs
    return Reading(way, inputs, outputs, stacks - experts, experts, why)


def by_declaration(leaf: Leaf, trace: Trace) -> Reading:
    """Reading from the uses, overridden by what the user declares."""
    try:
        reading = by_uses(leaf, trace)
    except ValueError:
        if leaf.role is None and leaf.inputs is None:
            raise
        return by_convention(leaf)
    stacks = reading.layers | reading.experts if leaf.stacks is None else leaf.stacks
    way = WAYS.get(leaf.role or "", "product")
    agree = leaf.role in (None, "fixed") or way == reading.way
    if agree and leaf.inputs is None:
        inputs, outputs = reading.inputs - stacks, reading.outputs - stacks
        reading = reading._replace(inputs=inputs, outputs=outputs)
    else:
        reading = by_convention(leaf._replace(stacks=stacks))
    experts = stacks if leaf.role == "expert" else reading.experts & stacks
    return reading._replace(layers=stacks - experts, experts=experts)


def by_uses(leaf: Leaf, trace: Trace) -> Reading:
    """Reading on which all uses agree."""
    uses = trace.uses[leaf.path]
    _check_known(leaf, uses)
    way, inputs, outputs = _way(leaf, uses, trace.is_cut(leaf.path))
    reading = Reading(
        way,
        inputs,
        outputs,
        layers=NONE.union(*(use.layers | use.indexed for use in uses)),
        experts=NONE.union(*(use.experts for use in uses)),
        why=values.described(uses),
    )
    if way == "entries":
        reading = _vector_reading(leaf, uses, reading, trace)
    return _stacked(leaf, uses, reading, trace.experts(leaf.path))


def _check_known(leaf: Leaf, uses: Collection[Use]) -> None:
    """Raise unless there are uses, and their primitives are understood."""
    if not uses:
        must = "be used by apply, on the example it is given as an argument"
        kept = f"If the outputs do not depend on it, say {leaf.say('roles', 'fixed')}."
        raise leaf.error(must, "no use", kept)
    if any(UNKNOWN in use.by for use in uses):
        must = "meet data in a product, in a lookup or entry by entry"
        raise leaf.error(must, _names(uses), leaf.other_role())


def _way(
    leaf: Leaf, uses: Collection[Use], in_parts: bool
) -> tuple[str, Labels, Labels]:
    """Way in which all uses meet data, and their inputs and outputs; raise if they differ."""
    products = {(use.inputs, use.outputs) for use in uses if use.by in PRODUCTS}
    lookups = {(use.inputs, use.outputs) for use in uses if use.by == "gather"}
    entries = [use for use in uses if use.by not in (*PRODUCTS, "gather")]
    if not products | lookups:
        return "entries", NONE, NONE.union(*(use.outputs for use in entries))
    if lookups:  # lookups first
        ways = sorted(products | lookups, key=lambda way: way not in lookups)
    else:  # first the product whose output is a width
        ways = sorted(products, key=lambda way: not way[1] & leaf.changed)
    (inputs, outputs), *other_ways = ways
    table = bool(lookups) or not (in_parts or inputs & leaf.changed)
    is_consistent = not other_ways or (table and other_ways == [(outputs, inputs)])
    if (products and entries) or not is_consistent:
        raise leaf.error(
            "be used in one way", values.described(uses), leaf.other_role()
        )
    if inputs & outputs:
        must = f"sum over all or nothing of axis {values.listed(inputs & outputs)}"
        raise leaf.error(must, values.described(uses), leaf.other_role())
    way = "both" if other_ways else "lookup" if lookups else "product"
    if way != "product" and inputs & leaf.changed:
        role = "embedding" if way == "lookup" else "tied"
        raise leaf.error(
            "be looked up in rows that do not grow",
            _names(uses),
            "Keep their number, say a vocabulary's, in base, target and delta; or say that it "
            f"is no width: {leaf.say('roles', role)}.",
        )
    return way, inputs, outputs


def _vector_reading(
    leaf: Leaf, uses: Collection[Use], reading: Reading, trace: Trace
) -> Reading:
    """The reading of a vector: which of its axes are features, and which number rows."""
    outputs, over = reading.outputs, NONE.union(*(use.over for use in uses))
    stacks = reading.layers | reading.experts
    last = max({*range(len(leaf.shape))} - stacks, default=-1)
    unexplained = outputs & leaf.changed - (over & leaf.changed or {last})
    if unexplained and any(use.by in ("mul", "div") for use in uses):
        must = "be a gain along its last axis only, or the matrix of a product"
        got = f"{_names(uses)} over axes {values.listed(outputs)}"
        say = f"If it is a gain, say {leaf.say('roles', 'vector')}; if not, its inputs."
        raise leaf.error(must, got, say)
    features = frozenset(i for i in outputs if (leaf.path, i) in trace.features)
    if not features & leaf.changed:
        return reading
    experts = reading.experts | (outputs - features) & leaf.changed
    return reading._replace(experts=experts, outputs=outputs - experts)


def _stacked(
    leaf: Leaf, uses: Collection[Use], reading: Reading, experts: Labels
) -> Reading:
    """The reading, with axes of layers and of `experts` removed from inputs and outputs."""
    inputs, outputs = reading.inputs, reading.outputs
    if not outputs & leaf.changed or (outputs - experts) & leaf.changed:
        outputs -= experts  # unless no other output grows
    indexed = NONE.union(*(use.indexed for use in uses)) - inputs - outputs
    if indexed & leaf.changed - (leaf.stacks or NONE):
        raise leaf.error(
            f"not be taken apart along axis {values.listed(indexed)}, which grows",
            _names(uses),
            f"If it numbers layers, say so: {leaf.say('stacks', (0,))}.",
        )
    experts = (experts | reading.experts) - inputs - outputs
    layers = reading.layers - inputs - outputs - experts
    return reading._replace(outputs=outputs, layers=layers, experts=experts)


def _names(uses: Collection[Use]) -> str:
    """Names of the primitives that use a parameter."""
    return ", ".join(sorted({use.by for use in uses}))


def _role(reading: Reading, widths: Labels, ranked: bool) -> str:
    """Role by where widths are: in the inputs, in the outputs, in both or in neither."""
    match bool(reading.inputs & widths), bool(reading.outputs & widths):
        case False, True:
            tied = "embedding" if ranked else "tied"  # a codebook, ranked by distance
            names = {"lookup": "embedding", "both": tied, "entries": "vector"}
            return names.get(reading.way, "input" if reading.inputs else "vector")
        case True, True:
            return "expert" if reading.experts else "hidden"
        case True, False:
            return "router" if ranked else "output"
    return "fixed"
