"""A model's parameters at several sizes, matched leaf by leaf."""

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import tree
from gradkit._core.width import pattern

NAME = "gradkit.infer_parametrization"
Shapes = Mapping[str, tuple[int, ...]]  # by path


class Built(NamedTuple):
    """A model of one size."""

    size: Any  # as the user gave it
    names: Mapping[str, Any]  # the sizes in it
    params: Any  # a tree of shapes
    shapes: Shapes  # of the leaves that can be trained


def build(init: Callable[..., Any] | None, size: Any) -> Built:
    """The model of one size, or with `init` None of the tree that `size` is."""
    if init is None:
        names, params, size = {}, jax.eval_shape(lambda t: t, size), "of the tree"
    elif isinstance(size, Mapping):
        names, params = size, jax.eval_shape(lambda: _once(init(**size)))
    else:
        names, params = {"size": size}, jax.eval_shape(lambda: _once(init(size)))
    leaves = zip(tree.paths(params), jax.tree.leaves(params))
    real = {path: x for path, x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)}
    return Built(size, names, params, {path: x.shape for path, x in real.items()})


def _once(params: Any) -> Any:
    """`params`, in which no NNX variable stands at two paths."""
    places = defaultdict(list)
    found = jax.tree.leaves(params, is_leaf=tree.is_variable)
    for path, x in zip(tree.paths(params, is_leaf=tree.is_variable), found):
        places[id(x)].append(path)
        if tree.is_variable(x) and len(places[id(x)]) > 1:
            raise ValueError(
                f"{NAME}: {' and '.join(places[id(x)])} must be one leaf, got one NNX variable "
                "at both. Let init return nnx.state(module, nnx.Param)."
            )
    return params


def matched(new: Shapes, old: Shapes, method: str, names: str) -> dict[str, str]:
    """For every path of `new` the path of `old` it is compared with: itself, or a like layer."""
    alike = defaultdict(list)
    for path in old:
        alike[pattern(path)].append(path)
    counts = Counter(map(pattern, new))
    odd = {p for p in {*new, *old} if counts[pattern(p)] == len(alike[pattern(p)])}
    odd &= new.keys() ^ old.keys()
    odd |= {p for p in old if pattern(p) not in counts}
    odd |= {p for p in new if not alike[pattern(p)]}
    if odd:
        raise ValueError(
            f"{method}: {names} must have the same parameters, up to the number "
            f"of layers, got only in one: {sorted(odd)}. Build one model at several sizes."
        )

    def nearest(path: str) -> str:
        found = defaultdict(list)
        for twin in alike[pattern(path)]:
            pairs = zip(re.findall(r"\d+", path), re.findall(r"\d+", twin))
            found[sum(a == b for a, b in pairs)].append(twin)
        best = found[max(found)]
        if len({old[twin] for twin in best}) > 1:
            raise ValueError(
                f"{method}: leaf {path} must be like the layers of the smaller model, got "
                f"{ {twin: old[twin] for twin in best} }. Lists that grow hold layers of one "
                "shape: give other layers a name of their own."
            )
        return best[0]

    return {path: path if path in old else nearest(path) for path in new}


def twins(new: Shapes, old: Shapes) -> dict[str, str]:
    """The same of shapes, which must have as many axes."""
    found = matched(new, old, NAME, "base, target and delta")
    for path, twin in found.items():
        if len(new[path]) != len(old[twin]) or 0 in new[path] + old[twin]:
            raise ValueError(
                f"{NAME}: leaf {path} must have as many axes at all sizes, none of them empty, "
                f"got {old[twin]} and {new[path]}. Change widths and depths only."
            )
    return found


def depths(new: Shapes, old: Shapes) -> dict[str, float]:
    """By path, how much longer the lists of layers are that it is in."""
    many, few = Counter(map(pattern, new)), Counter(map(pattern, old))
    return {path: many[pattern(path)] / few[pattern(path)] for path in new}


def check_proportions(base: Built, other: Built) -> None:
    """Every axis must grow as a product of powers of the sizes does; trees have no sizes."""
    old, new = base.names, other.names
    if old.keys() != new.keys():
        raise ValueError(
            f"{NAME}: base, target and delta must name the same sizes, got {sorted(old)} and "
            f"{sorted(new)}. Give every size in each."
        )
    if not new:
        return
    differ = [(old[k], new[k]) for k in new if old[k] != new[k]]
    if not all(isinstance(a, Real) and isinstance(b, Real) for a, b in differ):
        return  # a configuration, say, from which no proportion can be told
    powers = [[(b / a) ** k for k in range(-1, 3)] for a, b in differ if a * b > 0]
    allowed = [math.prod(choice) for choice in itertools.product(*powers)]
    twin = twins(other.shapes, base.shapes)
    for path, shape in other.shapes.items():
        for axis, (a, b) in enumerate(zip(base.shapes[twin[path]], shape)):
            if not any(math.isclose(b / a, ratio) for ratio in allowed):
                raise ValueError(
                    f"{NAME}: leaf {path} must grow in proportion to its sizes, {old} to "
                    f"{new}, got axis {axis} from {a} to {b}. Make that width a size with a "
                    "name of its own, in base, target and delta; for a sum such as width + 1 "
                    "pass trees of shapes in place of sizes, without init."
                )
