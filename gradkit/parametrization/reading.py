"""Kind, axes and matrices of every leaf of a model, read from a trace of the model."""

import json
import math
import os
import pathlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core.jaxpr import values
from gradkit._core.jaxpr.axes import NONE, Labels
from gradkit._core.jaxpr.follow import follow
from gradkit._core.jaxpr.primitives import PRODUCTS
from gradkit._core.jaxpr.trace import Trace
from gradkit._core.jaxpr.values import UNKNOWN, Use
from gradkit._core.matrix import patterns
from gradkit._core.routing.viewed import names_of
from gradkit._core.table import aligned
from gradkit._core.types import Transform
from gradkit.parametrization import matching
from gradkit.parametrization.by_model import by_model
from gradkit.parametrization.parameter import expression, is_of, pattern

NAME = "gradkit.read_model"
MATRICES = {"matrix", "convolution"}
KINDS = {
    "matrix": "sums over its inputs and makes features that go on",
    "convolution": "the same, at every place of a window",
    "embedding": "rows are looked up",
    "tied": "rows are looked up, and make the outputs of the model too",
    "readout": "makes the outputs of the model",
    "router": "makes what chooses among experts",
    "vector": "a gain, a bias, a position: meets features entry by entry",
}


class Cut(NamedTuple):
    """Cut of an output axis into parts, as of fused queries, keys and values."""

    axis: int
    step: int  # distance between two entries of a part
    lengths: tuple[int, ...]  # of the parts, in steps


class LeafReading(NamedTuple):
    """Kind of one leaf, and the role of each of its axes. Axes are numbered from 0."""

    shape: tuple[int, ...]
    kind: str  # a key of `KINDS`
    inputs: tuple[int, ...] = ()  # axes summed over; of a table, its rows
    outputs: tuple[int, ...] = ()  # axes kept in the output
    stacked: tuple[int, ...] = ()  # axes that number layers, experts or blocks
    cut: Cut | None = None  # how fused matrices are cut apart
    groups: int = 1  # feature groups of a convolution
    why: str = ""

    @property
    def blocks(self) -> int:
        """Number of fused matrices, side by side in the outputs."""
        return 1 if self.cut is None else len(self.cut.lengths)

    @property
    def is_matrix(self) -> bool:
        """Whether it holds hidden matrices of more than one row and column."""
        rows, cols = self._matrix
        return self.kind in MATRICES and min(rows, cols) > 1

    @property
    def _matrix(self) -> tuple[int, int]:
        """Rows (inputs) and columns of the smallest matrix in the leaf."""
        rows, cols = (
            math.prod(self.shape[axis] for axis in axes)
            for axes in (self.inputs, self.outputs)
        )
        if self.cut is None:
            return rows, cols // self.groups
        return rows, cols * min(self.cut.lengths) // sum(self.cut.lengths)

    @property
    def pattern(self) -> str:
        """Pattern for `view_by_pattern` that makes it `[stack, inputs, outputs]`, or one vector."""
        left = {axis: f"a{axis}" for axis in range(len(self.shape))}
        right, part = dict(left), []
        if self.cut is not None:
            axis, step, lengths = self.cut
            if len({*lengths}) == 1:
                groups = self.shape[axis] // (sum(lengths) * step)
                group = "group " * (groups > 1)
                size = f"group={groups} " * (groups > 1)
                left[axis] = f"({size}part={len(lengths)} a{axis})"
                right[axis] = f"{group}a{axis}"
                part = ["part"]
            else:
                left[axis] += "=" + "+".join(str(n * step) for n in lengths)
        elif self.groups > 1 and self.outputs:
            axis = self.outputs[-1]
            left[axis] = f"(part={self.groups} a{axis})"
            part = ["part"]
        assigned = {*self.inputs, *self.outputs, *self.stacked}
        outputs = sorted({*self.outputs, *(left.keys() - assigned)})
        batch, rows, cols = (
            [right[axis] for axis in axes]
            for axes in (self.stacked, self.inputs, outputs)
        )
        written = " ".join(left.values())
        if not (rows and cols):
            return f"{written} -> {_group(batch + rows + cols)}" if left else "->"
        views = [_group(names) for names in (batch + part, rows, cols) if names]
        return f"{written} -> {' '.join(views)}"


@jax.tree_util.register_static
class ModelReading(Mapping[str, LeafReading]):
    """`LeafReading` by parameter path: constant, hashable, and empty as a pytree.

    It prints as a table, and recipes of matrices take it as `model=`.
    """

    def __init__(self, leaves: Mapping[str, LeafReading], notes: Iterable[str] = ()):
        """Keep `leaves`, and `notes` on doubtful readings."""
        self._leaves = dict(leaves)
        self.notes = tuple(notes)
        self._patterns = {path: patterns.read(x.pattern) for path, x in self.items()}

    def __getitem__(self, path: str) -> LeafReading:
        """The `LeafReading` at `path`."""
        return self._leaves[path]

    def __iter__(self) -> Iterator[str]:
        """Iterate over paths."""
        return iter(self._leaves)

    def __len__(self) -> int:
        """Number of leaves."""
        return len(self._leaves)

    def __hash__(self) -> int:
        """Hash of the leaves, in any order."""
        return hash(frozenset(self._leaves.items()))

    def __repr__(self) -> str:
        """Format as a table."""
        heads = "parameter", "kind", "shape", "matrices", "axes"
        rows = defaultdict(list)
        for path, x in self.items():
            cells = x.kind, str(x.shape), self._matrices(path), x.pattern
            rows[pattern(path), cells].append(path)
        lines = [
            (paths[0] if len(paths) == 1 else f"{name} ({len(paths)})", *cells)
            for (name, cells), paths in rows.items()
        ]
        return "\n".join(
            [aligned([heads, *lines]), *(f"Note: {x}" for x in self.notes)]
        )

    def shown_to(
        self,
        factory: str,
        build: Callable[[Mapping[str, Any]], Any],
        arguments: Mapping[str, Any],
        takes: Collection[str],
    ) -> Transform:
        """Build a transform from `arguments`, and show it the leaves as these matrices."""
        return by_model(factory, build, arguments, takes, self)

    def views(self, path: str) -> list[str]:
        """Names of the views of a leaf: its path, or one path below it for each block."""
        return names_of(self._patterns[path], path)

    def pattern_of(self, path: str, x: Any) -> patterns.Pattern:
        """Pattern of the leaf `x`; raise if the model that was read has no such leaf."""
        if path not in self:
            raise ValueError(
                f"model must know every leaf, got {path}. Read the model with the tree of "
                f"parameters that is trained; it has {sorted(self)}."
            )
        if np.shape(x) != self[path].shape and np.size(x):
            raise ValueError(
                f"model must have read leaf {path} in its shape, got {self[path].shape} and "
                f"{np.shape(x)}. Read the model at the size that is trained."
            )
        return self._patterns[path]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON."""
        leaves = {key: x._asdict() for key, x in self.items()}
        text = json.dumps({"leaves": leaves, "notes": self.notes}, indent=1)
        pathlib.Path(path).write_text(text)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "ModelReading":
        """Read what `save` wrote."""

        def leaf(fields: dict[str, Any]) -> LeafReading:
            converted: dict[str, Any] = {
                k: tuple(x) if isinstance(x, list) else x for k, x in fields.items()
            }
            if fields["cut"] is not None:
                axis, step, lengths = fields["cut"]
                converted["cut"] = Cut(axis, step, tuple(lengths))
            return LeafReading(**converted)

        data = json.loads(pathlib.Path(path).read_text())
        return cls({k: leaf(x) for k, x in data["leaves"].items()}, data["notes"])

    def _matrices(self, path: str) -> str:
        """Describe number and shape of the matrices in a leaf, as `3 of 4 x 4`."""
        x = self[path]
        if not (x.inputs and x.outputs):
            return ""
        leaf = jax.ShapeDtypeStruct(x.shape, jnp.float32)
        shapes = (block.shape for block in patterns.split(self._patterns[path], leaf))
        texts = (
            f"{n} of " * int(n > 1) + f"{rows} x {cols}" for n, rows, cols in shapes
        )
        return ", ".join(texts)


def read_model(
    apply: Callable[..., Any],
    params: Any,
    example: Any,
    *,
    kinds: Mapping[str, str] | None = None,
) -> ModelReading:
    """Trace a model once, and read the kind and the matrices of each parameter, in any layout.

    Nothing is computed: `apply` is only traced. The equations that use a parameter tell which
    axes are summed over, which are kept, and which number layers, experts or blocks. They also
    tell whether its output is cut, as of fused queries, keys and values, and whether it is hidden
    or an output of the model.

    Args:
        apply: the forward pass, without a gradient in it: `apply(params, example)`; with a
            tuple, `apply(params, *example)`.
        params: parameters, or their shapes; a module that is a pytree will do. The tree that the
            optimizer is given.
        example: arrays, or their shapes.
        kinds: the kind, where the model leaves doubt, by path or by a regular expression for it:
            `matrix`, `embedding`, `readout`, `router`, `vector` ... Where the axes are in doubt
            too, the last one is the output.

    Returns: the `ModelReading`, to print, save, and pass to recipes of matrices as `model=`.

    Raises: `ValueError` with the path of a leaf, and what to pass, where anything is in doubt.

    >>> params = {"qkv": jnp.ones((4, 12)), "out": jnp.ones((4, 9))}
    >>> attend = lambda q, k, v: jax.nn.softmax(q @ k.T) @ v
    >>> apply = lambda p, x: attend(*jnp.split(x @ p["qkv"], 3, -1)) @ p["out"]
    >>> gk.read_model(apply, params, jnp.ones((5, 4)))
    parameter     kind    shape    matrices                          axes
    out        readout   (4, 9)       4 x 9                a0 a1 -> a0 a1
    qkv         matrix  (4, 12)  3 of 4 x 4  a0 (part=3 a1) -> part a0 a1
    """
    built = matching.build(None, params)
    shapes = built.shapes
    for rule, kind in (kinds or {}).items():
        if kind not in KINDS:
            raise ValueError(
                f"{NAME}: kinds must be known, got {kind!r}. Choose from {[*KINDS]}."
            )
        if not any(is_of(rule, path, shapes) for path in shapes):
            raise ValueError(
                f"{NAME}: kinds must match a leaf, got {rule!r}. Choose from {sorted(shapes)}."
            )
    # A named tuple is one argument.
    args = example if type(example) is tuple else (example,)
    try:
        trace = follow(apply, built.params, *args)
    except Exception as error:
        raise ValueError(
            f"{NAME}: apply must run on params and the example, got "
            f"{type(error).__name__}: {error}. Pass what the model is called with."
        ) from error
    leaves, notes = {}, {}
    for path, shape in shapes.items():
        matching_kinds = (
            k for rule, k in (kinds or {}).items() if is_of(rule, path, shapes)
        )
        used = Used(path, shape, trace.uses[path], trace, shapes)
        leaves[path], leaf_notes = _leaf(used, next(matching_kinds, None))
        notes |= dict.fromkeys(leaf_notes)
    return ModelReading(leaves, notes)


class Used(NamedTuple):
    """A leaf, and its uses in the trace."""

    path: str
    shape: tuple[int, ...]
    uses: tuple[Use, ...]
    trace: Trace
    shapes: matching.Shapes  # of all leaves

    def by(self, *primitives: str) -> list[Use]:
        """Uses by one of `primitives`."""
        return [use for use in self.uses if use.by in primitives]

    def doubt(self, must: str, got: str) -> ValueError:
        """Make the error for a leaf that must `must`, but for which the trace shows `got`."""
        kind = "matrix" if len(self.shape) > 1 else "vector"
        say = f"kinds={{{expression(self.path)!r}: {kind!r}}}"
        text = f"leaf {self.path} must {must}, got {got}. Say what it is: {say}, or another."
        return ValueError(f"{NAME}: {text}")


def _leaf(used: Used, declared: str | None) -> tuple[LeafReading, list[str]]:
    """Reading of a leaf from its uses and the kind that is `declared`, and notes on doubts."""
    try:
        x, doubts = _by_uses(used)
    except ValueError:
        if declared is None:
            raise
        axes = range(len(used.shape))
        vector = declared == "vector" or len(axes) < 2
        inputs, outputs = ((), (*axes,)) if vector else ((*axes[:-1],), (*axes[-1:],))
        return LeafReading(used.shape, declared, inputs, outputs, why="declared"), []
    if declared is None or declared == x.kind:
        return x, doubts
    if declared == "vector":
        outputs = tuple(sorted({*x.inputs, *x.outputs}))
        x = LeafReading(x.shape, declared, (), outputs, x.stacked, why="declared")
        return x, doubts
    return x._replace(kind=declared, why="declared"), doubts


def _by_uses(used: Used) -> tuple[LeafReading, list[str]]:
    """The reading on which all uses agree, and notes on doubts."""
    inputs, outputs = _axes(used)
    unit_axes = frozenset(i for i, n in enumerate(used.shape) if n == 1)
    stacked = _stacked(used) - inputs - unit_axes
    inputs, outputs = inputs - unit_axes, outputs - stacked - unit_axes
    kind = _kind(used, inputs)
    groups = max(use.groups for use in used.uses)
    if kind == "vector":
        inputs, outputs, groups = NONE, _features(used, inputs | outputs), 1
    cuts = [] if kind == "vector" or groups > 1 else _cuts(used, outputs)
    x = LeafReading(
        used.shape,
        kind,
        tuple(sorted(inputs)),
        tuple(sorted(outputs)),
        tuple(sorted(stacked)),
        _expressible_cut(cuts, used.shape),
        groups,
        values.described(used.uses),
    )
    return x, [*_doubts(used, x, cuts)]


def _axes(used: Used) -> tuple[Labels, Labels]:
    """Inputs and outputs on which all uses agree; raise if they differ."""
    if not used.uses:
        must = "be used by apply, on the example it is given as an argument"
        raise used.doubt(must, "no use")
    names = ", ".join(dict.fromkeys(use.by for use in used.uses))
    if any(use.by.startswith(UNKNOWN) for use in used.uses):
        must = "meet data in a product, in a lookup or entry by entry"
        raise used.doubt(must, names)
    products, lookups = used.by(*PRODUCTS), used.by("gather")
    matrices = [*lookups, *products]
    if products and len(matrices) < len(used.uses):
        raise used.doubt("be used in one way", names)
    first, *_ = matrices or used.uses
    inputs, outputs = first.inputs, first.outputs
    if not matrices:
        outputs = NONE.union(*(use.outputs for use in used.uses))
    other_ways = {(use.inputs, use.outputs) for use in matrices} - {(inputs, outputs)}
    if lookups or not used.trace.is_cut(used.path):
        other_ways.discard((outputs, inputs))  # a table that is also the output matrix
    if other_ways or inputs & outputs:
        raise used.doubt("be used in one way", values.described(used.uses))
    return inputs, outputs


def _stacked(used: Used) -> Labels:
    """Axes that number layers, experts or blocks, by its uses or those of linked leaves."""
    by_use = (use.layers | use.experts | use.indexed | use.blocks for use in used.uses)
    by_other_leaves = used.trace.experts(used.path) - used.trace.sums(
        used.path
    )  # axes that are summed over are heads
    return NONE.union(*by_use) | by_other_leaves


def _features(used: Used, axes: Labels) -> Labels:
    """Axes of a vector that are features; axes that number rows, such as positions, are dropped."""
    feature_axes = frozenset(i for i in axes if (used.path, i) in used.trace.features)
    return feature_axes or axes


def _kind(used: Used, inputs: Labels) -> str:
    """Kind of a leaf, by its uses."""
    products = used.by(*PRODUCTS)
    if used.by("gather"):
        return "tied" if products else "embedding"
    if not products or not inputs:
        return "vector"
    if len({(use.inputs, use.outputs) for use in products}) > 1:
        return "tied"
    if used.path in used.trace.ranked and _routes(used, products[0].outputs):
        return "router"
    if used.path not in used.trace.feeds_products:
        return "readout"
    return "convolution" if used.by("conv_general_dilated") else "matrix"


def _routes(used: Used, outputs: Labels) -> bool:
    """Whether a leaf with ranked outputs has as many outputs as there are experts elsewhere."""
    count, shapes = math.prod(used.shape[axis] for axis in outputs), used.shapes
    stacked = {shapes[p][axis] for p, axis in used.trace.expert_axes if p in shapes}
    folder = used.path.rpartition("/")[0]
    siblings = defaultdict(set)
    for other in shapes:
        if match := re.match(rf"{re.escape(folder)}(/?\D*)(\d+)", other):
            siblings[match[1]].add(match[2])
    return count in stacked or any(
        count == len(numbers) for numbers in siblings.values()
    )


def _cuts(used: Used, outputs: Labels) -> list[Cut]:
    """Cuts of the output axes of a leaf into parts that are used apart."""
    return [
        Cut(axis, int(step), tuple(int(b - a) for a, b in ends))
        for axis in sorted(outputs)
        for step, ends in used.trace.blocks((used.path, axis))
    ]


def _expressible_cut(cuts: list[Cut], shape: tuple[int, ...]) -> Cut | None:
    """The cut, if it is the only one and a pattern can express it; else None."""
    if len(cuts) != 1 or not cuts[0].step:
        return None
    (cut,) = cuts
    covers_axis = sum(cut.lengths) * cut.step == shape[cut.axis]
    return cut if covers_axis or len({*cut.lengths}) == 1 else None


def _doubts(used: Used, x: LeafReading, cuts: list[Cut]) -> Iterator[str]:
    """Notes on doubtful readings."""
    leaf = expression(used.path)
    if used.path in used.trace.ranked and x.kind in {*MATRICES, "readout"}:
        yield (
            f"{leaf}: what it makes is ranked. If it chooses among experts, say "
            f"kinds={{{leaf!r}: 'router'}}."
        )
    if cuts and x.cut is None:
        yield (
            f"{leaf} holds several matrices that no one pattern takes apart; it is seen as one. "
            "To have each worked, give them an axis of their own, or use view_by_pattern."
        )


def _group(names: list[str]) -> str:
    """Join names to one group of a pattern, in parentheses if there are several."""
    return (
        names[0] if len(names) == 1 and " " not in names[0] else f"({' '.join(names)})"
    )
