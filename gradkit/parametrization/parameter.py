"""Parametrization: role, fan-in, fan-out and depth of each parameter at two sizes."""

import collections
import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from gradkit._core.table import aligned

KINDS = {  # role: kind, which is where widths enter
    "hidden": "hidden",  # sums over a width and produces a width
    "expert": "hidden",  # the same, many side by side
    "input": "input",  # sums over a fixed size and produces a width
    "embedding": "input",  # looked up
    "tied": "input",  # looked up, and the output matrix too
    "vector": "input",  # produces a width, entry by entry: biases and gains
    "output": "output",  # sums over a width and produces a fixed size
    "router": "output",  # the same, and chooses among experts
    "fixed": "fixed",  # meets no width
}


class Parameter(NamedTuple):
    """One parameter of a model at two sizes. Axes are numbered from 0."""

    shape: tuple[int, ...]  # at the target size
    base: tuple[int, ...]  # at the base size
    role: str  # a key of KINDS
    inputs: tuple[int, ...] = ()  # axes summed over
    outputs: tuple[int, ...] = ()  # axes kept in the output
    stacks: tuple[int, ...] = ()  # axes that number layers or experts
    widths: tuple[int, ...] = ()  # axes that are widths, grown or not
    depth: float = 1.0  # growth of the number of layers like its own; 1 if in none
    why: str = ""  # what decided the role
    factor: float = (
        1.0  # constant that the model multiplies it or its output by, at the target
    )
    base_factor: float = 1.0  # the same at the base size
    readout_factor: float = (
        1.0  # target over base factor of a tied table as the output matrix
    )

    @property
    def kind(self) -> str:
        """`hidden`, `input`, `output` or `fixed`."""
        return KINDS[self.role]

    @property
    def fan_in(self) -> int:
        """Number of entries summed for one output."""
        return math.prod(self.shape[axis] for axis in self.inputs)

    @property
    def fan_out(self) -> int:
        """Number of outputs that one input enters."""
        return math.prod(self.shape[axis] for axis in self.outputs)

    @property
    def base_fan_in(self) -> int:
        """`fan_in` at the base size."""
        return math.prod(self.base[axis] for axis in self.inputs)

    @property
    def base_fan_out(self) -> int:
        """`fan_out` at the base size."""
        return math.prod(self.base[axis] for axis in self.outputs)

    @property
    def growth_in(self) -> float:
        """Target over base `fan_in`."""
        return self.fan_in / self.base_fan_in

    @property
    def growth_out(self) -> float:
        """Target over base `fan_out`."""
        return self.fan_out / self.base_fan_out

    @property
    def growth_factor(self) -> float:
        """Target over base `factor`."""
        return self.factor / self.base_factor


@jax.tree_util.register_static
class Parametrization(Mapping[str, Parameter]):
    """`Parameter` by parameter path: constant, hashable, and empty as a pytree."""

    def __init__(
        self, parameters: Mapping[str, Parameter], notes: tuple[str, ...] = ()
    ):
        """Keep `parameters`, and `notes` on what no optimizer can do."""
        self._parameters = dict(parameters)
        self.notes = notes

    def __getitem__(self, path: str) -> Parameter:
        """The `Parameter` at `path`."""
        return self._parameters[path]

    def __iter__(self) -> Iterator[str]:
        """Iterate over paths."""
        return iter(self._parameters)

    def __len__(self) -> int:
        """Number of parameters."""
        return len(self._parameters)

    def __hash__(self) -> int:
        """Hash of the parameters, in any order."""
        return hash(frozenset(self._parameters.items()))

    def __repr__(self) -> str:
        """Format as a table."""
        return self.table()

    def table(
        self, columns: Mapping[str, Callable[[Parameter], float]] | None = None
    ) -> str:
        """Table of parameters, with one line for like layers, and `columns` at the right."""
        heads = "parameter", "role", "base", "target", "in", "out", "depth"
        rows = collections.defaultdict(list)
        for path, p in self.items():
            numbers = p.growth_in, p.growth_out, p.depth
            more = [column(p) for column in (columns or {}).values()]
            cells = p.role, _marked(p, p.base), _marked(p, p.shape)
            row = *cells, *(f"{x:.4g}" for x in (*numbers, *more))
            rows[pattern(path), row].append(path)
        lines = [
            (paths[0] if len(paths) == 1 else f"{name} ({len(paths)})", *row)
            for (name, row), paths in rows.items()
        ]
        text = aligned([(*heads, *(columns or {})), *lines])
        return "\n".join([text, *(f"Note: {note}" for note in self.notes)])

    def explain(self, path: str) -> str:
        """Describe in words what decided the role of one parameter, and how far it grew."""
        p = self[path]
        return (
            f"{path} is {p.role}: {p.why}. Base {p.base}, target {p.shape}, widths are axes "
            f"{p.widths}, layers or experts {p.stacks}. Sums over axes {p.inputs}, "
            f"{p.base_fan_in} then {p.fan_in} entries (x {p.growth_in:.4g}); makes axes "
            f"{p.outputs}, {p.base_fan_out} then {p.fan_out} (x {p.growth_out:.4g}); depth "
            f"x {p.depth:.4g}.{_multiplied(p)}"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON."""
        parameters = {key: value._asdict() for key, value in self.items()}
        text = json.dumps({"parameters": parameters, "notes": self.notes}, indent=1)
        pathlib.Path(path).write_text(text)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Parametrization":
        """Read what `save` wrote."""

        def parameter(fields: dict[str, Any]) -> Parameter:
            axes: dict[str, Any] = {
                k: tuple(v) for k, v in fields.items() if isinstance(v, list)
            }
            return Parameter(**(fields | axes))

        data = json.loads(pathlib.Path(path).read_text())
        parameters = {k: parameter(v) for k, v in data["parameters"].items()}
        return cls(parameters, tuple(data["notes"]))


def pattern(path: str) -> str:
    """`path` with `*` for every number: the same for all layers of a list."""
    return re.sub(r"\d+", "*", path)


def is_of(rule: str, path: str, paths: Collection[str]) -> bool:
    """Whether `rule` equals `path`, or, if it is none of `paths`, matches it as an expression."""
    return rule == path if rule in paths else bool(re.search(rule, path))


def expression(path: str) -> str:
    """A regular expression for `path` and its like in other layers."""
    return re.sub(r"\d+", r"\\d+", re.escape(path)) + "$" * bool(re.search(r"\d", path))


def _multiplied(p: Parameter) -> str:
    """Describe in words the factors that the model multiplies a parameter by."""
    growths = [(f"{p.base_factor:.4g} then {p.factor:.4g}", p.growth_factor)]
    growths += [("as the output matrix too", p.readout_factor)]
    texts = [f"{words} (x {x:.4g})" for words, x in growths if x != 1]
    return (
        f" The model multiplies what it makes by {', '.join(texts)}." if texts else ""
    )


def _marked(p: Parameter, shape: tuple[int, ...]) -> str:
    """Format a shape as `[stacks] inputs -> outputs`."""
    parts = [
        ",".join(str(shape[axis]) for axis in axes)
        for axes in (p.stacks, p.inputs, p.outputs)
    ]
    stacked = f"[{parts[0]}] " if p.stacks else ""
    return f"{stacked}{parts[1]} -> {parts[2]}"
