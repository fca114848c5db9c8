"""Which leaves of an old state are those of a new one."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core.restore.nodes import (
    MEASURED,
    Node,
    Part,
    is_linked,
    parts_of,
    shape_of,
    states,
    with_empty_fields,
)

T = TypeVar("T")


class Pairs(NamedTuple):
    """What was found, by path."""

    kept: dict[str, str]  # a leaf of the new state: that of the old one
    fresh: dict[str, str]  # a leaf of the new state: why none of the old one is it
    dropped: dict[str, str]  # a leaf of the old state: why it is none of the new one
    ambiguous: list[str]  # what in `fresh` has several candidates


def paired(new_root: Node, old_root: Node, params: Any, owners: Sequence[str]) -> Pairs:
    """Pair the leaves; `owners` are the paths of parameters.

    The largest subtrees that both states have once are paired whole. What is left is paired part
    by part, within a part by path.
    """
    new_states = states(new_root, params)
    old_root = with_empty_fields(old_root, new_states)
    fields = {n.fields for n in new_states if n.fields}
    known = [n for n in old_root.below() if n.fields in fields or is_linked(n)]
    new = parts_of(new_root, set(new_states))
    old = parts_of(old_root, set(known))
    result = Pairs({}, {}, {}, [])
    _pair_subtrees(new_root, old_root, new, result)
    taken = set(result.kept.values())
    new = [p for p in new if not _paths(p) & result.kept.keys()]
    old = [p for p in old if not _paths(p) & taken]
    _pair_parts(new, old, owners, result)
    _complete(new_root, old_root, result)
    return result


def _pair_subtrees(new: Node, old: Node, parts: Iterable[Part], result: Pairs) -> None:
    """Pair the largest subtrees with parts that stand in both states once."""
    around = {part.node for part in parts}
    theirs, ours = (_grouped(_outside(n), Node.shapes) for n in (old, new))

    def walk(node: Node) -> None:
        if not around.intersection(node.below()) and node is not new:
            return
        shapes = node.shapes()
        found = [n for n in theirs[shapes] if _may_be(node, n)]
        if node.leaves() and len(found) == len(ours[shapes]) == 1:
            others = found[0].leaves()
            for path, leaf in node.leaves().items():
                result.kept[leaf.path] = others[path].path
        elif not is_linked(node):
            for child in node.children:
                walk(child)

    walk(new)


def _pair_parts(
    new: Iterable[Part], old: Iterable[Part], owners: Sequence[str], result: Pairs
) -> None:
    """Pair parts of the same fields; those that are alike, by the leaves that they have."""
    known = any(p.node.name for p in old)
    classes = {p.node.fields: p.node.name for p in old}
    theirs = _grouped(old, lambda p: _kind(p, known))
    for kind, ours in _grouped(new, lambda p: _kind(p, known)).items():
        fields = ", ".join(sorted(ours[0].node.fields))
        missing = f"old has no state of fields {fields}"
        if not theirs[kind] and (other := classes.get(ours[0].node.fields)):
            missing = f"old has fields {fields} as {other}, not {ours[0].node.name}"
        _pair_kind(ours, theirs[kind], missing, owners, result)


def _pair_kind(
    new: list[Part],
    old: list[Part],
    missing: str,
    owners: Sequence[str],
    result: Pairs,
) -> None:
    """Pair parts of one kind; `missing` says that there is none in `old`."""
    theirs = _grouped(old, Part.shapes)
    for shapes, ours in _grouped(new, Part.shapes).items():
        if len(ours) <= len(theirs[shapes]) and _equal(theirs[shapes]):
            for part, other in zip(ours, theirs[shapes]):
                _pair_leaves(part, other, owners, result)
                new.remove(part)
            for other in theirs[shapes]:
                old.remove(other)
    if len(new) == len(old) == 1:
        _pair_leaves(new[0], old[0], owners, result)
        return
    for part in new:
        if old:
            places = " and ".join(sorted(o.node.path or "the whole" for o in old))
            _leave(part, f"ambiguous: it may be {places} of old", result)
            result.ambiguous.extend(n.path for n in part.leaves.values())
        else:
            _leave(part, missing, result)


def _pair_leaves(new: Part, old: Part, owners: Sequence[str], result: Pairs) -> None:
    """Pair the leaves of two parts: numbers of their own, then those of each parameter."""
    ours, theirs = _by_owner(new, owners), _by_owner(old, owners)
    own, others = ours.pop(None, {}), theirs.pop(None, {})
    if wrong := _difference(own, others):
        _leave(new, wrong, result)
        return
    fit = []
    for owner, group in ours.items():
        if wrong := _difference(group, theirs.get(owner, {})):
            for n in group.values():
                result.fresh[n.path] = wrong
        else:
            fit.append(owner)
    if ours and not fit:
        for n in own.values():
            result.fresh[n.path] = "nothing of a parameter fits beside it"
        return
    groups = [(own, others), *((ours[owner], theirs[owner]) for owner in fit)]
    for group, other in groups:
        for path, n in group.items():
            result.kept[n.path] = other[path].path


def _difference(new: dict[str, Node], old: dict[str, Node]) -> str | None:
    """Why these leaves are not those; None if they are."""
    for path in sorted(new.keys() | old.keys()):
        if path not in old:
            return f"old has no {path} beside it" if old else f"old has no {path}"
        if path not in new:
            return f"old has {old[path].path} besides"
        (shape, dtype), (old_shape, old_dtype) = (
            shape_of(x[path].leaf) for x in (new, old)
        )
        if shape != old_shape:
            return f"{old[path].path} of old has shape {old_shape}, not {shape}"
        if dtype != old_dtype:
            return f"{old[path].path} of old has dtype {old_dtype}, not {dtype}"
    return None


def _complete(new: Node, old: Node, result: Pairs) -> None:
    """Say something of every leaf."""
    for n in new.leaves().values():
        if n.path not in result.kept:
            result.fresh.setdefault(n.path, "it stands in no state with named fields")
    taken = set(result.kept.values())
    for n in old.leaves().values():
        if n.path in taken:
            result.dropped.pop(n.path, None)
        else:
            result.dropped.setdefault(n.path, "no leaf of the new state is this one")


def _leave(part: Part, why: str, result: Pairs) -> None:
    result.fresh.update({n.path: why for n in part.leaves.values()})


def _kind(part: Part, known: bool) -> Any:
    """The fields of a part, and its class, if classes are known."""
    return part.node.fields, part.node.name if known else None


def _may_be(new: Node, old: Node) -> bool:
    """Whether no class is known to be another one in nodes of the same paths."""
    names = {new.relative(n): n.name for n in new.below() if n.name}
    return all(
        names.get(path, n.name) == n.name
        for n in old.below()
        if n.name and (path := old.relative(n)) in names
    )


def _by_owner(part: Part, owners: Sequence[str]) -> dict[str | None, dict[str, Node]]:
    """The leaves of a part by the parameter whose path theirs has behind a field's name."""
    if is_linked(part.node) and any(o.isdigit() for o in owners):
        owners = ()  # they may be indices of something else: all is taken together
    found: dict[str | None, dict[str, Node]] = defaultdict(dict)
    if part.node.fields == MEASURED:
        for path, n in part.leaves.items():
            found[_reported(path)][path] = n
        return found
    for path, n in part.leaves.items():
        named = [o for o in owners if o and f"/{o}/" in f"{path}/"]
        found[max(named, key=len, default=None)][path] = n
    return found


def _reported(path: str) -> str | None:
    """The number or the event of a `measure` that a leaf of its state is of."""
    if path.startswith("events/"):
        return path.rpartition("/")[0]
    return path if path.startswith("numbers/") else None


def _equal(parts: Sequence[Part]) -> bool:
    """Whether these parts, of the same leaves, hold the same numbers."""
    first, *others = parts
    return all(
        _same(n.leaf, other.leaves[path].leaf)
        for other in others
        for path, n in first.leaves.items()
    )


def _same(x: Any, y: Any) -> bool:
    if not all(getattr(z, "is_fully_addressable", True) for z in (x, y)):
        return False
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x, y = jax.random.key_data(x), jax.random.key_data(y)
    return np.array_equal(np.asarray(x), np.asarray(y))


def _outside(root: Node) -> list[Node]:
    """All nodes but those inside of a linked one."""
    inside = () if is_linked(root) else root.children
    return [root, *(n for child in inside for n in _outside(child))]


def _grouped(found: Iterable[T], by: Callable[[T], Any]) -> dict[Any, list[T]]:
    groups: dict[Any, list[T]] = defaultdict(list)
    for x in found:
        groups[by(x)].append(x)
    return groups


def _paths(part: Part) -> set[str]:
    return {n.path for n in part.leaves.values()}
