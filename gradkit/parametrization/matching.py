"""A model's parameters at several sizes, matched leaf by leaf."""

import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, NamedTuple

import jax

from gradkit._core.numbers import is_array, is_trained
from gradkit._core.paths import is_variable, leaf_paths
from gradkit.parametrization.parameter import pattern as starred

NAME = "gradkit.infer_parametrization"
Shapes = Mapping[str, tuple[int, ...]]  # by path


class Built(NamedTuple):
    """A model of one size."""

    size: Any  # as the user gave it
    names: Mapping[str, Any]  # the sizes in it
    params: Any  # a tree of shapes
    shapes: Shapes  # of the leaves that can be trained


def build(init: Callable[..., Any] | None, size: Any) -> Built:
    """The model of one size, or with `init` None of the tree that `size` is.

    What is no array, such as the activation functions of an Equinox module, stays as it is.
    """
    if init is None:
        names, params, size = {}, _shapes(lambda: size), "of the tree"
    elif isinstance(size, Mapping):
        names, params = size, _shapes(lambda: init(**size))
    else:
        names, params = {"size": size}, _shapes(lambda: init(size))
    leaves = zip(leaf_paths(params), jax.tree.leaves(params))
    real = {path: x.shape for path, x in leaves if is_trained(x)}
    return Built(size, names, params, real)


def _shapes(make: Callable[[], Any]) -> Any:
    """What `make` returns, with shapes for arrays. Nothing is computed."""
    known: list[Any] = []

    def arrays() -> list[Any]:
        leaves, structure = jax.tree.flatten(_once(make()))
        others = [None if is_array(x) else x for x in leaves]
        known[:] = structure, others
        return [x for x, other in zip(leaves, others) if other is None]

    shapes = iter(jax.eval_shape(arrays))
    structure, others = known
    return structure.unflatten(next(shapes) if x is None else x for x in others)


def _once(params: Any) -> Any:
    """`params`, in which no NNX variable stands at two paths."""
    found = jax.tree.leaves(params, is_leaf=is_variable)
    if len({*map(id, found)}) == len(found):
        return params
    places = defaultdict(list)
    for path, x in zip(leaf_paths(params, is_leaf=is_variable), found):
        places[id(x)].append(path)
        if is_variable(x) and len(places[id(x)]) > 1:
            raise ValueError(
                f"{NAME}: {' and '.join(places[id(x)])} must be one leaf, got one NNX variable "
                "at both. Let init return nnx.state(module, nnx.Param)."
            )
    return params


def numbered(paths: Iterable[str]) -> dict[str, str]:
    """Every path with a number where only its like have one: `linear` beside `linear_1`."""
    paths = [*paths]
    parts = {tuple(path.split("/")[:i]) for path in paths for i in range(1, 99)}
    first = {
        (*part[:-1], match[1])
        for part in parts
        if (match := re.fullmatch(r"(.*\D)_\d+", part[-1]))
    } & parts

    found = {}
    for path in paths:
        names = path.split("/")
        found[path] = "/".join(
            name + "_0" * ((*names[:i], name) in first) for i, name in enumerate(names)
        )
    return found


def matched(new: Shapes, old: Shapes, method: str, names: str) -> dict[str, str]:
    """For every path of `new` the path of `old` it is compared with: itself, or a like layer."""
    if new.keys() == old.keys():
        return {path: path for path in new}
    name = numbered([*new, *old])
    kind = {path: starred(name[path]) for path in name}
    digits = {path: re.findall(r"\d+", name[path]) for path in name}
    many, few = defaultdict(list), defaultdict(list)  # by kind, in order
    for lists, paths in ((many, new), (few, old)):
        for path in sorted(paths, key=lambda path: [*map(int, digits[path])]):
            lists[kind[path]].append(path)
    single = {k for k in many if len(many[k]) == len(few.get(k, ())) == 1}
    odd = {path for path in new.keys() ^ old.keys() if kind[path] in single}
    odd |= {path for path in name if kind[path] in many.keys() ^ few.keys()}
    if odd:
        raise ValueError(
            f"{method}: {names} must have the same parameters, up to the number "
            f"of layers, got only in one: {sorted(odd)}. Build one model at several sizes."
        )
    found = {}
    for k, paths in many.items():
        ends = _by_ends(paths, few[k], old)
        for path in paths:
            alike = [path] if path in old else _nearest(path, few[k], digits)
            found[path] = ends.get(path, alike[0])
            if path not in ends and len({old[other] for other in alike}) > 1:
                raise ValueError(
                    f"{method}: leaf {path} must be like the layers of the smaller model, got "
                    f"{ {other: old[other] for other in alike} }. Lists that grow hold layers of "
                    "one shape, but for the first and the last: give other layers a name of "
                    "their own."
                )
    return found


def _nearest(
    path: str, others: Iterable[str], digits: Mapping[str, list[str]]
) -> list[str]:
    """Those of the `others` that have most numbers in common with a path."""
    found = defaultdict(list)
    for other in others:
        pairs = zip(digits[path], digits[other])
        found[sum(a == b for a, b in pairs)].append(other)
    return found[max(found)]


def _by_ends(many: list[str], few: list[str], shapes: Shapes) -> dict[str, str]:
    """The first and the last of a longer list of layers, and those between, if they differ."""
    inner = few[1:-1]
    one_list = all(len(re.findall(r"\d+", path)) <= 1 for path in few)
    differ = len({shapes[path] for path in few}) > 1
    if not (differ and one_list and len(many) > len(few)):
        return {}
    if len({shapes[path] for path in inner}) != 1:
        return {}
    between = dict.fromkeys(many[1:-1], inner[0])
    return {many[0]: few[0], **between, many[-1]: few[-1]}


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


EXPERTS = re.compile(r"(expert|branch|tower|head)(s|es)?$", re.IGNORECASE)


def depths(new: Shapes, old: Shapes) -> dict[str, float]:
    """By path, how much longer the lists of layers are that it is in, by their names.

    Lists of experts, branches, towers and heads lie side by side and have no depth.
    """
    if new.keys() == old.keys():
        return dict.fromkeys(new, 1.0)
    name = numbered([*new, *old])
    layer = {path: _layer(name[path]) for path in name}
    many, few = (
        Counter(map(starred, {layer[path] for path in paths})) for paths in (new, old)
    )
    return {k: many[starred(layer[k])] / few[starred(layer[k])] for k in new}


def _layer(name: str) -> str:
    """The path of a layer, without the numbers of lists that lie side by side."""
    parts = name.split("/")
    lists = zip(["", *parts], parts)  # a bare number counts what stands before it
    named = (before if part.isdigit() else part for before, part in lists)
    return "/".join(
        re.sub(r"\d+", "*", part) if EXPERTS.search(_bare(list_)) else part
        for part, list_ in zip(parts, named)
    )


def _bare(part: str) -> str:
    """A name without its number."""
    return re.sub(r"[_\d]+$", "", part) or part


def check_proportions(base: Built, other: Built, twin: Mapping[str, str]) -> None:
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
    for path, shape in other.shapes.items():
        for axis, (a, b) in enumerate(zip(base.shapes[twin[path]], shape)):
            if not any(math.isclose(b / a, ratio) for ratio in allowed):
                raise ValueError(
                    f"{NAME}: leaf {path} must grow in proportion to its sizes, {old} to "
                    f"{new}, got axis {axis} from {a} to {b}. Make that width a size with a "
                    "name of its own, in base, target and delta; for a sum such as width + 1 "
                    "pass trees of shapes in place of sizes, without init."
                )
