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
        known[:] = structure, [None if is_array(x) else x for x in leaves]
        return [x for x in leaves if is_array(x)]

    shapes = iter(jax.eval_shape(arrays))
    structure, others = known
    return structure.unflatten(next(shapes) if x is None else x for x in others)


def _once(params: Any) -> Any:
    """`params`, in which no NNX variable stands at two paths."""
    places = defaultdict(list)
    found = jax.tree.leaves(params, is_leaf=is_variable)
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

    def one(path: str) -> str:
        names = path.split("/")
        ends = (tuple(names[: i + 1]) for i in range(len(names)))
        return "/".join(n + "_0" * (end in first) for n, end in zip(names, ends))

    return {path: one(path) for path in paths}


def matched(new: Shapes, old: Shapes, method: str, names: str) -> dict[str, str]:
    """For every path of `new` the path of `old` it is compared with: itself, or a like layer."""
    alike = defaultdict(list)
    name = numbered([*new, *old])
    pattern = lambda path: starred(name[path])
    for path in sorted(old, key=lambda path: [*map(int, _digits(name[path]))]):
        alike[pattern(path)].append(path)
    new = dict(sorted(new.items(), key=lambda x: [*map(int, _digits(name[x[0]]))]))
    counts = Counter(map(pattern, new))
    single = {p for p, n in counts.items() if n == len(alike[p]) == 1}
    odd = {p for p in new.keys() ^ old.keys() if pattern(p) in single}
    odd |= {p for p in old if pattern(p) not in counts}
    odd |= {p for p in new if not alike[pattern(p)]}
    if odd:
        raise ValueError(
            f"{method}: {names} must have the same parameters, up to the number "
            f"of layers, got only in one: {sorted(odd)}. Build one model at several sizes."
        )

    ends = {
        p: _by_ends([k for k in new if pattern(k) == p], alike[p], old) for p in counts
    }

    def twin(path: str) -> str:
        if path in ends[pattern(path)]:
            return ends[pattern(path)][path]
        if path in old:
            return path
        found = defaultdict(list)
        for other in alike[pattern(path)]:
            pairs = zip(_digits(name[path]), _digits(name[other]))
            found[sum(a == b for a, b in pairs)].append(other)
        best = found[max(found)]
        if len({old[other] for other in best}) > 1:
            raise ValueError(
                f"{method}: leaf {path} must be like the layers of the smaller model, got "
                f"{ {other: old[other] for other in best} }. Lists that grow hold layers of one "
                "shape, but for the first and the last: give other layers a name of their own."
            )
        return best[0]

    return {path: twin(path) for path in new}


def _by_ends(many: list[str], few: list[str], shapes: Shapes) -> dict[str, str]:
    """The first and the last of a longer list of layers, and those between, if they differ."""
    inner = few[1:-1]
    one_list = all(len(_digits(path)) <= 1 for path in few)
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
    name = numbered([*new, *old])

    def layer(path: str) -> str:
        parts = name[path].split("/")
        lists = zip(["", *parts], parts)  # a bare number counts what stands before it
        named = [before if part.isdigit() else part for before, part in lists]
        beside = [bool(EXPERTS.search(_bare(part))) for part in named]
        return "/".join(
            re.sub(r"\d+", "*", part) if is_beside else part
            for part, is_beside in zip(parts, beside)
        )

    def lengths(paths: Shapes) -> Counter[str]:
        return Counter(map(starred, {layer(path) for path in paths}))

    many, few = lengths(new), lengths(old)
    return {k: many[starred(layer(k))] / few[starred(layer(k))] for k in new}


def _bare(part: str) -> str:
    """A name without its number."""
    return re.sub(r"[_\d]+$", "", part) or part


def _digits(path: str) -> list[str]:
    return re.findall(r"\d+", path)


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
