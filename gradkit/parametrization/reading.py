"""What every leaf of a model is, and which matrices it holds: read from what the model does."""

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
from gradkit._core.jaxpr.primitives import PRODUCTS
from gradkit._core.jaxpr.trace import Trace, follow
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
    """How the model cuts what an axis makes: every so many steps into parts of these lengths."""

    axis: int
    step: int  # from one entry of a part to the next
    lengths: tuple[int, ...]  # of the parts, in such steps


class LeafReading(NamedTuple):
    """One leaf of a model. Axes are numbered from 0."""

    shape: tuple[int, ...]
    kind: str  # a key of `KINDS`
    inputs: tuple[int, ...] = ()  # axes summed over; of a table, its rows
    outputs: tuple[int, ...] = ()  # axes produced
    stacked: tuple[int, ...] = ()  # axes that number layers, experts or blocks
    cut: Cut | None = None  # of fused matrices
    groups: int = 1  # of a convolution, of which each sums over channels of its own
    why: str = ""

    @property
    def blocks(self) -> int:
        """How many matrices stand side by side in the outputs."""
        return 1 if self.cut is None else len(self.cut.lengths)

    @property
    def is_matrix(self) -> bool:
        """Whether it holds matrices of more than one row and column that features pass."""
        rows, cols = self._matrix
        return self.kind in MATRICES and min(rows, cols) > 1

    @property
    def _matrix(self) -> tuple[int, int]:
        """Rows, which are inputs, and columns: of the smallest matrix in it."""
        rows, cols = (
            math.prod(self.shape[axis] for axis in axes)
            for axes in (self.inputs, self.outputs)
        )
        if self.cut is None:
            return rows, cols // self.groups
        return rows, cols * min(self.cut.lengths) // sum(self.cut.lengths)

    @property
    def pattern(self) -> str:
        """How it becomes `[stack, inputs, outputs]`, or one vector, for `view_by_pattern`."""
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
        known = {*self.inputs, *self.outputs, *self.stacked}
        outputs = sorted({*self.outputs, *(left.keys() - known)})
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
        """Keep `leaves`, and `notes` on what may be otherwise."""
        self._leaves = dict(leaves)
        self.notes = tuple(notes)
        self._patterns = {path: patterns.read(x.pattern) for path, x in self.items()}

    def __getitem__(self, path: str) -> LeafReading:
        """That of the leaf at `path`."""
        return self._leaves[path]

    def __iter__(self) -> Iterator[str]:
        """Their paths."""
        return iter(self._leaves)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._leaves)

    def __hash__(self) -> int:
        """Equal for equal ones, in any order."""
        return hash(frozenset(self._leaves.items()))

    def __repr__(self) -> str:
        """The table."""
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
        """What `build` makes of the arguments that `factory` takes, shown these matrices."""
        return by_model(factory, build, arguments, takes, self)

    def views(self, path: str) -> list[str]:
        """What the views of a leaf are called."""
        return names_of(self._patterns[path], path)

    def pattern_of(self, path: str, x: Any) -> patterns.Pattern:
        """How the leaf `x` is seen; an error where the model that was read had another."""
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
            found: dict[str, Any] = {
                k: tuple(x) if isinstance(x, list) else x for k, x in fields.items()
            }
            if fields["cut"] is not None:
                axis, step, lengths = fields["cut"]
                found["cut"] = Cut(axis, step, tuple(lengths))
            return LeafReading(**found)

        data = json.loads(pathlib.Path(path).read_text())
        return cls({k: leaf(x) for k, x in data["leaves"].items()}, data["notes"])

    def _matrices(self, path: str) -> str:
        """How many matrices a leaf holds, and of which shape, in words."""
        x = self[path]
        if not (x.inputs and x.outputs):
            return ""
        leaf = jax.ShapeDtypeStruct(x.shape, jnp.float32)
        shapes = (block.shape for block in patterns.split(self._patterns[path], leaf))
        said = (
            f"{n} of " * int(n > 1) + f"{rows} x {cols}" for n, rows, cols in shapes
        )
        return ", ".join(said)


def read_model(
    apply: Callable[..., Any],
    params: Any,
    example: Any,
    *,
    kinds: Mapping[str, str] | None = None,
) -> ModelReading:
    """Read from one trace of a model what each of its parameters is, in any layout.

    Nothing is computed: `apply` is only traced, for its equations. Every parameter is followed
    to those that use it, and they say which axes are summed over, which are made, and which
    number layers, experts or blocks; whether what it makes is cut, as by fused queries, keys and
    values; and whether it goes on in the model or out of it.

    Args:
        apply: the forward pass, without a gradient in it: `apply(params, example)`; with a
            tuple, `apply(params, *example)`.
        params: parameters, or their shapes; a module that is a pytree will do. The tree that the
            optimizer is given.
        example: arrays, or their shapes.
        kinds: the kind, where the model leaves doubt, by path or by regular expression on it:
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
    paths = built.shapes
    for rule, kind in (kinds or {}).items():
        if kind not in KINDS:
            raise ValueError(
                f"{NAME}: kinds must be known, got {kind!r}. Choose from {[*KINDS]}."
            )
        if not any(is_of(rule, path, paths) for path in paths):
            raise ValueError(
                f"{NAME}: kinds must match a leaf, got {rule!r}. Choose from {sorted(paths)}."
            )
    args = example if type(example) is tuple else (example,)  # not a named one
    try:
        trace = follow(apply, built.params, *args)
    except Exception as error:
        raise ValueError(
            f"{NAME}: apply must run on params and the example, got "
            f"{type(error).__name__}: {error}. Pass what the model is called with."
        ) from error

    def said(path: str) -> str | None:
        named = (k for rule, k in (kinds or {}).items() if is_of(rule, path, paths))
        return next(named, None)

    notes: list[str] = []
    leaves = {
        path: _leaf(path, shape, trace, said(path), notes, paths)
        for path, shape in paths.items()
    }
    return ModelReading(leaves, dict.fromkeys(notes))


def _leaf(
    path: str,
    shape: tuple[int, ...],
    trace: Trace,
    said: str | None,
    notes: list[str],
    shapes: matching.Shapes,
) -> LeafReading:
    """What a leaf is, as its uses show and the user says."""
    uses = [use for _, use in sorted(trace.uses[path].items())]
    try:
        x = _by_uses(path, shape, trace, uses, notes, shapes)
    except ValueError:
        if said is None:
            raise
        rest = range(len(shape))
        vector = said == "vector" or len(shape) < 2
        inputs, outputs = ((), (*rest,)) if vector else ((*rest[:-1],), (*rest[-1:],))
        return LeafReading(shape, said, inputs, outputs, why="declared")
    if said is None or said == x.kind:
        return x
    if said == "vector":
        outputs = tuple(sorted({*x.inputs, *x.outputs}))
        return LeafReading(shape, said, (), outputs, x.stacked, why="declared")
    return x._replace(kind=said, why="declared")


def _by_uses(
    path: str,
    shape: tuple[int, ...],
    trace: Trace,
    uses: list[Use],
    notes: list[str],
    shapes: matching.Shapes,
) -> LeafReading:
    def doubt(must: str, got: str, kind: str) -> ValueError:
        say = f"kinds={{{expression(path)!r}: {kind!r}}}"
        text = f"leaf {path} must {must}, got {got}. Say what it is: {say}, or another."
        return ValueError(f"{NAME}: {text}")

    likely = "matrix" if len(shape) > 1 else "vector"
    if not uses:
        must = "be used by apply, on the example it is given as an argument"
        raise doubt(must, "no use", likely)
    names = ", ".join(dict.fromkeys(use.by for use in uses))
    if any(use.by.startswith(UNKNOWN) for use in uses):
        must = "meet data in a product, in a lookup or entry by entry"
        raise doubt(must, names, likely)
    products = [use for use in uses if use.by in PRODUCTS]
    lookups = [use for use in uses if use.by == "gather"]
    entries = [use for use in uses if use.by not in (*PRODUCTS, "gather")]
    if products and entries:
        raise doubt("be used in one way", names, likely)
    first = (lookups or products or entries)[0]
    inputs, outputs = first.inputs, first.outputs
    if not (products or lookups):
        outputs = NONE.union(*(use.outputs for use in entries))
    ways = {(use.inputs, use.outputs) for use in (*products, *lookups)}
    ways.discard((inputs, outputs))
    if lookups or not trace.features.is_cut(path):
        ways.discard((outputs, inputs))  # a table that is the output matrix too
    if ways or inputs & outputs:
        raise doubt("be used in one way", values.described(uses), likely)
    one = frozenset(i for i, n in enumerate(shape) if n == 1)
    stacked = NONE.union(
        *(use.layers | use.experts | use.picked | use.blocks for use in uses)
    )
    heads = trace.features.summed(path)
    stacked = (stacked | trace.experts(path) - heads) - inputs - one
    outputs -= stacked | one
    inputs -= one
    kind = _kind(path, shape, trace, products, lookups, inputs, notes, shapes)
    if kind == "vector":
        inputs, outputs = NONE, outputs | inputs
        rows = frozenset(i for i in outputs if (path, i) not in trace.features)
        outputs = outputs - rows if rows != outputs else outputs
    groups = 1 if kind == "vector" else max(use.groups for use in uses)
    whole = kind == "vector" or groups > 1
    cut = None if whole else _cut(path, shape, trace, outputs, notes)
    return LeafReading(
        shape,
        kind,
        tuple(sorted(inputs)),
        tuple(sorted(outputs)),
        tuple(sorted(stacked)),
        cut,
        groups,
        values.described(uses),
    )


def _kind(
    path: str,
    shape: tuple[int, ...],
    trace: Trace,
    products: list[Use],
    lookups: list[Use],
    inputs: Labels,
    notes: list[str],
    shapes: matching.Shapes,
) -> str:
    if lookups:
        return "tied" if products else "embedding"
    if not products or not inputs:
        return "vector"
    if len({(use.inputs, use.outputs) for use in products}) > 1:
        return "tied"
    if path in trace.ranked:
        if _routes(path, shape, trace, products, shapes):
            return "router"
        notes.append(
            f"{expression(path)}: what it makes is ranked. If it chooses among experts, say "
            f"kinds={{{expression(path)!r}: 'router'}}."
        )
    if path not in trace.followed:
        return "readout"
    by = {use.by for use in products}
    return "convolution" if "conv_general_dilated" in by else "matrix"


def _routes(
    path: str,
    shape: tuple[int, ...],
    trace: Trace,
    products: list[Use],
    shapes: matching.Shapes,
) -> bool:
    """Whether what a leaf makes, which is ranked, are as many as experts elsewhere."""
    made = math.prod(shape[axis] for axis in products[0].outputs)
    stacked = {shapes[p][axis] for p, axis in trace.side_by_side if p in shapes}
    folder = path.rpartition("/")[0]
    beside = defaultdict(set)
    for other in shapes:
        if match := re.match(rf"{re.escape(folder)}(/?\D*)(\d+)", other):
            beside[match[1]].add(match[2])
    return made in stacked or any(made == len(found) for found in beside.values())


def _cut(
    path: str,
    shape: tuple[int, ...],
    trace: Trace,
    outputs: Labels,
    notes: list[str],
) -> Cut | None:
    """How what a leaf makes is cut into parts that go their ways, if it is."""
    found = [
        Cut(axis, int(step), tuple(int(b - a) for a, b in ends))
        for axis in sorted(outputs)
        for (step, _), ends in trace.features.blocks(path, axis).items()
    ]
    if not found:
        return None
    if len(found) == 1 and found[0].step:
        (cut,) = found
        whole = sum(cut.lengths) * cut.step == shape[cut.axis]
        if whole or len({*cut.lengths}) == 1:
            return cut
    notes.append(
        f"{expression(path)} holds several matrices that no one pattern takes apart; it is seen "
        "as one. To have each worked, give them an axis of their own, or use view_by_pattern."
    )
    return None


def _group(names: list[str]) -> str:
    return (
        names[0] if len(names) == 1 and " " not in names[0] else f"({' '.join(names)})"
    )
