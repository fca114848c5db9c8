"""Depth growth of each parameter: the length of its chain of equal layers in the trace."""

from collections import defaultdict
from collections.abc import Mapping

from gradkit._core.jaxpr.trace import Trace
from gradkit.parametrization import matching
from gradkit.parametrization.matching import Shapes
from gradkit.parametrization.parameter import pattern

Size = tuple[
    tuple[int, ...], tuple[int, ...]
]  # shapes of a leaf, at the base and at the target
Kind = frozenset[tuple[str, Size]]  # names of the leaves in a layer, with their sizes


def growth(
    trace: Trace,
    shapes: Shapes,
    base: Trace,
    base_shapes: Shapes,
    twins: Mapping[str, str],
) -> dict[str, float]:
    """Depth at the target size over depth at the base size, by path.

    Depth counts layers in series. Experts, branches and towers run in parallel and add no depth,
    and neither does a layer that is applied repeatedly. `twins` maps paths of the target model to
    paths of the base model.
    """
    if shapes.keys() == base_shapes.keys():
        return dict.fromkeys(shapes, 1.0)
    numbered_names = matching.numbered([*shapes, *base_shapes])
    target_sizes = {
        path: (base_shapes[twins[path]], shape) for path, shape in shapes.items()
    }
    like = {
        (pattern(numbered_names[path]), size[0]): size
        for path, size in target_sizes.items()
    }
    by_twin = {twins[path]: size for path, size in target_sizes.items()}
    base_sizes = {
        path: by_twin.get(path) or like.get((pattern(numbered_names[path]), x), (x, ()))
        for path, x in base_shapes.items()
    }
    target_depths, base_depths = (
        in_series(trace, target_sizes, numbered_names),
        in_series(base, base_sizes, numbered_names),
    )
    return {path: target_depths[path] / base_depths[twins[path]] for path in shapes}


def in_series(
    trace: Trace, grown: Mapping[str, Size], names: Mapping[str, str]
) -> dict[str, int]:
    """Length of the longest chain of layers of the same kind, for the layer of each leaf.

    A layer holds all leaves below one number in the path, so that its gains and biases count with
    its matrices. A layer is behind another if any leaf of the other is upstream of any of its own.
    """
    layers: dict[str, list[str]] = defaultdict(list)
    for path in grown:
        layers[_layer(names[path])].append(path)
    kinds = {
        layer: frozenset((pattern(names[path]), grown[path]) for path in paths)
        for layer, paths in layers.items()
    }
    first_use = {
        layer: min(
            min((use.at for use in trace.uses[path]), default=0) for path in paths
        )
        for layer, paths in layers.items()
    }
    lengths: dict[str, int] = {}
    for layer in sorted(layers, key=lambda layer: first_use[layer]):
        upstream = frozenset().union(*(trace.upstream[path] for path in layers[layer]))
        chains = [
            n
            for other, n in lengths.items()
            if kinds[other] == kinds[layer] and upstream & {*layers[other]}
        ]
        lengths[layer] = 1 + max(chains, default=0)
    longest: dict[Kind, int] = defaultdict(int)
    for layer, n in lengths.items():
        longest[kinds[layer]] = max(longest[kinds[layer]], n)
    return {path: longest[kinds[k]] for k, paths in layers.items() for path in paths}


def _layer(name: str) -> str:
    """`name` up to its last part with a number; all of it if there is none."""
    parts = name.split("/")
    numbered = [i for i, part in enumerate(parts) if any(c.isdigit() for c in part)]
    return "/".join(parts[: numbered[-1] + 1]) if numbered else name
