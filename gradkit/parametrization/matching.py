"""A model's parameters at several sizes, matched leaf by leaf."""

import inspect
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, NamedTuple

import jax

from gradkit._core.call import refusal
from gradkit._core.numbers import is_array, is_trained
from gradkit._core.paths import is_variable, leaf_paths
from gradkit.parametrization.parameter import pattern as starred

NAME = "gradkit.infer_parametrization"
Shapes = Mapping[str, tuple[int, ...]]  # by path


class Built(NamedTuple):
    """A model of one size."""

    size: Any  # as the user passed it
    names: Mapping[str, Any]  # sizes by name
    params: Any  # a tree of shapes
    shapes: Shapes  # of trainable leaves


def build(init: Callable[..., Any] | None, size: Any) -> Built:
    """Build the model of one size; with `init` None, `size` is its tree.

    Leaves that are not arrays, such as the activation functions of an Equinox module, are kept.
    """
    _check_takes(init, size)
    if init is None:
        names, params, size = {}, _shapes(lambda: size), "of the tree"
    elif isinstance(size, Mapping):
        names, params = size, _shapes(lambda: init(**size))
    else:
        names, params = {"size": size}, _shapes(lambda: init(size))
    leaves = zip(leaf_paths(params), jax.tree.leaves(params))
    real = {path: x.shape for path, x in leaves if is_trained(x)}
    return Built(size, names, params, real)


def _check_takes(init: Any, size: Any) -> None:
    """Check that `init`, unless it is None, is called with a size of this form."""
    if init is None:
        return
    if not callable(init):
        what = "init must be a function from a size to parameters"
        remedy = "Leave it out, and pass parameters of both sizes as base and target."
        raise ValueError(f"{NAME}: {what}, got {type(init).__name__}. {remedy}")
    named = isinstance(size, Mapping)
    if wrong := refusal(init, **size) if named else refusal(init, size):
        takes = f"init{inspect.signature(init)}"
        what = f"{takes} must take {'**' if named else ''}{size!r:.60}"
        remedy = "Pass sizes by the names of its arguments; trees without init."
        raise ValueError(f"{NAME}: {what}, got {wrong}. {remedy}")


def _shapes(make: Callable[[], Any]) -> Any:
    """The tree that `make` returns, with shapes for arrays. Nothing is computed."""
    statics: list[Any] = []

    def arrays() -> list[Any]:
        leaves, structure = jax.tree.flatten(_once(make()))
        non_arrays = [None if is_array(x) else x for x in leaves]
        statics[:] = structure, non_arrays
        return [x for x, other in zip(leaves, non_arrays) if other is None]

    shapes = iter(jax.eval_shape(arrays))
    structure, non_arrays = statics
    return structure.unflatten(next(shapes) if x is None else x for x in non_arrays)


def _once(params: Any) -> Any:
    """Return `params`; raise if one NNX variable stands at two paths."""
    variables = jax.tree.leaves(params, is_leaf=is_variable)
    if len({*map(id, variables)}) == len(variables):
        return params
    places = defaultdict(list)
    for path, x in zip(leaf_paths(params, is_leaf=is_variable), variables):
        places[id(x)].append(path)
        if is_variable(x) and len(places[id(x)]) > 1:
            raise ValueError(
                f"{NAME}: {' and '.join(places[id(x)])} must be one leaf, got one NNX variable "
                "at both. Let init return nnx.state(module, nnx.Param)."
            )
    return params


def numbered(paths: Iterable[str]) -> dict[str, str]:
    """Names by path, with the first of a list numbered: `linear_0` for `linear` by `linear_1`."""
    paths = [*paths]
    parts = {tuple(path.split("/")[:i]) for path in paths for i in range(1, 99)}
    first_of_lists = {
        (*part[:-1], match[1])
        for part in parts
        if (match := re.fullmatch(r"(.*\D)_\d+", part[-1]))
    } & parts

    names_by_path = {}
    for path in paths:
        names = path.split("/")
        names_by_path[path] = "/".join(
            name + "_0" * ((*names[:i], name) in first_of_lists)
            for i, name in enumerate(names)
        )
    return names_by_path


def matched(new: Shapes, old: Shapes, method: str, names: str) -> dict[str, str]:
    """Match every path of `new` to the same one of `old`, or that of a layer of the same kind."""
    if new.keys() == old.keys():
        return {path: path for path in new}
    name = numbered([*new, *old])
    kind = {path: starred(name[path]) for path in name}
    digits = {path: re.findall(r"\d+", name[path]) for path in name}
    new_paths, old_paths = defaultdict(list), defaultdict(list)  # by kind, in order
    for lists, paths in ((new_paths, new), (old_paths, old)):
        for path in sorted(paths, key=lambda path: [*map(int, digits[path])]):
            lists[kind[path]].append(path)
    single_kinds = {
        k for k in new_paths if len(new_paths[k]) == len(old_paths.get(k, ())) == 1
    }
    unmatched = {path for path in new.keys() ^ old.keys() if kind[path] in single_kinds}
    unmatched |= {
        path for path in name if kind[path] in new_paths.keys() ^ old_paths.keys()
    }
    if unmatched:
        raise ValueError(
            f"{method}: {names} must have the same parameters, up to the number "
            f"of layers, got only in one: {sorted(unmatched)}. Build one model at several sizes."
        )
    matches = {}
    for k, paths in new_paths.items():
        ends = _by_ends(paths, old_paths[k], old)
        for path in paths:
            alike = [path] if path in old else _nearest(path, old_paths[k], digits)
            matches[path] = ends.get(path, alike[0])
            if path not in ends and len({old[other] for other in alike}) > 1:
                raise ValueError(
                    f"{method}: leaf {path} must be like the layers of the smaller model, got "
                    f"{ {other: old[other] for other in alike} }. Lists that grow hold layers of "
                    "one shape, but for the first and the last: give other layers a name of "
                    "their own."
                )
    return matches


def _nearest(
    path: str, others: Iterable[str], digits: Mapping[str, list[str]]
) -> list[str]:
    """The `others` that have the most numbers in common with `path`."""
    by_common_numbers = defaultdict(list)
    for other in others:
        pairs = zip(digits[path], digits[other])
        by_common_numbers[sum(a == b for a, b in pairs)].append(other)
    return by_common_numbers[max(by_common_numbers)]


def _by_ends(
    new_paths: list[str], old_paths: list[str], shapes: Shapes
) -> dict[str, str]:
    """Match first, last and inner layers of one longer list, if only its ends differ; else {}."""
    inner = old_paths[1:-1]
    is_one_list = all(len(re.findall(r"\d+", path)) <= 1 for path in old_paths)
    differ = len({shapes[path] for path in old_paths}) > 1
    if not (differ and is_one_list and len(new_paths) > len(old_paths)):
        return {}
    if len({shapes[path] for path in inner}) != 1:
        return {}
    between = dict.fromkeys(new_paths[1:-1], inner[0])
    return {new_paths[0]: old_paths[0], **between, new_paths[-1]: old_paths[-1]}


def twins(new: Shapes, old: Shapes) -> dict[str, str]:
    """`matched`, and check that matched leaves have equally many axes, none of them empty."""
    matches = matched(new, old, NAME, "base, target and delta")
    for path, twin in matches.items():
        if len(new[path]) != len(old[twin]) or 0 in new[path] + old[twin]:
            raise ValueError(
                f"{NAME}: leaf {path} must have as many axes at all sizes, none of them empty, "
                f"got {old[twin]} and {new[path]}. Change widths and depths only."
            )
    return matches


EXPERTS = re.compile(r"(expert|branch|tower|head)(s|es)?$", re.IGNORECASE)


def depths(new: Shapes, old: Shapes) -> dict[str, float]:
    """Growth of the number of layers by path, from names alone.

    Lists of experts, branches, towers and heads run in parallel and add no depth.
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
    """The path of a layer, without the numbers of parallel lists."""
    parts = name.split("/")
    lists = zip(["", *parts], parts)  # a bare number belongs to the name before it
    named = (before if part.isdigit() else part for before, part in lists)
    return "/".join(
        re.sub(r"\d+", "*", part) if EXPERTS.search(_bare(list_)) else part
        for part, list_ in zip(parts, named)
    )


def _bare(part: str) -> str:
    """`part` without a trailing number."""
    return re.sub(r"[_\d]+$", "", part) or part


def check_proportions(base: Built, other: Built, twin: Mapping[str, str]) -> None:
    """Raise unless every axis grows as a product of powers of the sizes, if there are sizes."""
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
        return  # sizes that are not numbers, such as a configuration
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
