"""How many like layers stand one behind the other, as the program shows."""

from collections import defaultdict
from collections.abc import Mapping

from gradkit._core.jaxpr.trace import Trace
from gradkit.parametrization import matching
from gradkit.parametrization.matching import Shapes
from gradkit.parametrization.parameter import pattern

Size = tuple[
    tuple[int, ...], tuple[int, ...]
]  # of a leaf, at the base and at the target
Kind = frozenset[tuple[str, Size]]  # the names in a layer, and their sizes


def growth(
    trace: Trace,
    shapes: Shapes,
    base: Trace,
    base_shapes: Shapes,
    twins: Mapping[str, str],
) -> dict[str, float]:
    """By path, how many more layers there are in series than at the base size.

    Experts, branches and towers do not feed each other and have no depth; nor has a layer that
    is used again and again.
    """
    if shapes.keys() == base_shapes.keys():
        return dict.fromkeys(shapes, 1.0)
    name = matching.numbered([*shapes, *base_shapes])
    new = {path: (base_shapes[twins[path]], shape) for path, shape in shapes.items()}
    like = {(pattern(name[path]), size[0]): size for path, size in new.items()}
    alone = {twins[path]: size for path, size in new.items()}
    old = {
        path: alone.get(path) or like.get((pattern(name[path]), x), (x, ()))
        for path, x in base_shapes.items()
    }
    many, few = in_series(trace, new, name), in_series(base, old, name)
    return {path: many[path] / few[twins[path]] for path in shapes}


def in_series(
    trace: Trace, grown: Mapping[str, Size], name: Mapping[str, str]
) -> dict[str, int]:
    """Of how many, in the longest chain of its kind, each leaf is one.

    A layer is all that stands below one number, so that what only scales or shifts in it, and
    works on no layer before, counts with the rest. It works on another if any of its leaves
    meets what any of the other's made.
    """
    layers: dict[str, list[str]] = defaultdict(list)
    for path in grown:
        layers[_layer(name[path])].append(path)
    kinds = {
        layer: frozenset((pattern(name[path]), grown[path]) for path in paths)
        for layer, paths in layers.items()
    }
    first = {
        layer: min(
            min((use.at for use in trace.uses[path]), default=0) for path in paths
        )
        for layer, paths in layers.items()
    }
    lengths: dict[str, int] = {}
    for layer in sorted(layers, key=lambda layer: first[layer]):
        before = frozenset().union(*(trace.before[path] for path in layers[layer]))
        behind = [
            n
            for other, n in lengths.items()
            if kinds[other] == kinds[layer] and before & {*layers[other]}
        ]
        lengths[layer] = 1 + max(behind, default=0)
    longest: dict[Kind, int] = defaultdict(int)
    for layer, n in lengths.items():
        longest[kinds[layer]] = max(longest[kinds[layer]], n)
    return {path: longest[kinds[k]] for k, paths in layers.items() for path in paths}


def _layer(name: str) -> str:
    """The path to the last part that has a number; without one the whole."""
    parts = name.split("/")
    numbered = [i for i, part in enumerate(parts) if any(c.isdigit() for c in part)]
    return "/".join(parts[: numbered[-1] + 1]) if numbered else name
