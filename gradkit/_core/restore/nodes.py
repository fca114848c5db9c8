"""A state as a tree of named nodes, the same for live containers and for what a file gives back.

Flax msgpack turns tuples into dicts with keys "0", "1", Orbax into lists; both turn a NamedTuple
into a dict with the names of its fields. An empty container may come back as another one. Orbax
writes an NNX variable as a dict with the one key "value".
"""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

Shape = tuple[str, tuple[int, ...], str] | tuple[str]  # a leaf, or an empty container

# States whose `inner` has no meaning without the rest: codes need scales, and moments in a
# subspace need its basis.
LINKED = {
    "StoredState": ("inner", "scales", "key", "count"),
    "SubspaceState": (
        "count",
        "bases",
        "found",
        "schedule",
        "residual",
        "key",
        "inner",
    ),
    "RandomSubspaceState": ("signs", "key", "inner"),
}
LINKS = {"scales", "bases", "signs"}  # without one of which there is nothing to link
MEASURED = frozenset({"count", "numbers", "events", "inner"})  # of a MeasureState


@dataclasses.dataclass(eq=False)
class Node:
    """A leaf, or a container and its children."""

    path: str  # from the root, names joined by `/`
    key: str  # the last name of `path`
    children: "list[Node]"
    leaf: Any  # an array; None in a container
    kind: type | None = None  # the class, if it is a NamedTuple
    name: str | None = None  # its name; a schema may know it where the class is lost

    @property
    def fields(self) -> frozenset[str]:
        """The names of the children."""
        return frozenset(child.key for child in self.children)

    def below(self) -> "Iterator[Node]":
        """This node and all below it, in order."""
        yield self
        for child in self.children:
            yield from child.below()

    def leaves(self) -> "dict[str, Node]":
        """Every leaf at or below this node, by its path from here."""
        return {self.relative(n): n for n in self.below() if n.leaf is not None}

    def relative(self, other: "Node") -> str:
        """The path of a node below, from here."""
        return other.path[len(self.path) :].lstrip("/")

    def shapes(self) -> tuple[Shape, ...]:
        """Paths, shapes and dtypes of leaves, and paths of empty containers."""
        ends = [n for n in self.below() if not n.children]
        return tuple(sorted(map(self._shape, ends)))

    def _shape(self, end: "Node") -> Shape:
        path = self.relative(end)
        return (path,) if end.leaf is None else (path, *shape_of(end.leaf))


def nodes(t: Any) -> Node:
    """The tree of nodes of a state."""
    return _node(t, "", "")


def places(root: Node) -> set[str]:
    """The paths of leaves and empty containers of a live state, each from its NamedTuple."""
    found: set[str] = set()

    def walk(node: Node, outer: Node) -> None:
        if not node.children:
            found.add(outer.relative(node))
        for child in node.children:
            walk(child, node if node.kind else outer)

    walk(root, root)
    return found


def without_variables(node: Node, known: Collection[str]) -> Node:
    """`node`, with an array in place of each dict `{"value": array}` at one of the `known` places.

    A parameter may itself be called `value`: the longest path that is known decides.
    """
    if node.leaf is None and [child.key for child in node.children] == ["value"]:
        (held,) = node.children
        one, other = _known(node.path, known), _known(held.path, known)
        if not held.children and one is not None and (other is None or one <= other):
            return Node(node.path, node.key, [], held.leaf)
    children = [without_variables(child, known) for child in node.children]
    return dataclasses.replace(node, children=children)


def with_empty_fields(node: Node, states: Sequence[Node]) -> Node:
    """`node`, with the fields that hold nothing in one of the live `states`, and are missing here.

    `nnx.state` leaves them out.
    """
    children = [with_empty_fields(child, states) for child in node.children]
    full = {s.fields: s for s in states}
    held = {frozenset(c.key for c in s.children if c.leaves()): s for s in states}
    fields = frozenset(child.key for child in children)
    if fields and fields not in full and (like := held.get(fields)):
        missing = (child.key for child in like.children if child.key not in fields)
        children += [Node(f"{node.path}/{key}", key, [], None) for key in missing]
    return dataclasses.replace(node, children=children)


def _known(path: str, known: Collection[str]) -> int | None:
    """The number of names before the longest end of `path` that is known; None if none is."""
    names = path.split("/")
    ends = ("/".join(names[i:]) for i in range(len(names)))
    return next((i for i, end in enumerate(ends) if end in known), None)


def shape_of(x: Any) -> tuple[tuple[int, ...], str]:
    """The shape and the dtype of a leaf."""
    dtype = getattr(x, "dtype", None)
    return np.shape(x), str(np.asarray(x).dtype if dtype is None else dtype)


def containers(t: Any) -> set[type]:
    """The classes of all containers in a tree."""
    found = {type(t)}
    for _, child in _children(t):
        found |= containers(child)
    return found


@dataclasses.dataclass(eq=False)
class Part:
    """The state of one transform, without the states in it that are parts themselves."""

    node: Node
    leaves: dict[str, Node]  # by path from `node`

    def shapes(self) -> tuple[Shape, ...]:
        """The path, shape and dtype of each leaf."""
        pairs = sorted(self.leaves.items())
        return tuple((path, *shape_of(n.leaf)) for path, n in pairs)


def is_linked(node: Node) -> bool:
    """Whether what this node holds is taken only with all of it."""
    if node.name is not None:
        return node.name in LINKED
    links = bool(node.fields & LINKS) and "inner" in node.fields
    return links and any(node.fields <= {*fields} for fields in LINKED.values())


def parts_of(root: Node, chosen: Collection[Node]) -> list[Part]:
    """The parts of a state at the `chosen` nodes, in order.

    States inside of one that is linked belong to it, unless they are counters alone.
    """
    found: list[Part] = []

    def walk(node: Node, part: Part | None, linked: bool) -> None:
        if node in chosen and (not linked or _counts(node)):
            found.append(part := Part(node, {}))
            linked = linked or is_linked(node)
        if node.leaf is not None and part is not None:
            part.leaves[part.node.relative(node)] = node
        for child in node.children:
            walk(child, part, linked)

    walk(root, None, False)
    return [part for part in found if part.leaves]


def states(root: Node, params: Any) -> list[Node]:
    """The nodes of a live state that are states: outermost NamedTuples, and those so called."""
    theirs = containers(params)
    found: list[Node] = []

    def walk(node: Node, outermost: bool) -> None:
        if node.kind is not None and node.kind not in theirs:
            if outermost or node.kind.__name__.endswith("State"):
                found.append(node)
            outermost = False
        for child in node.children:
            walk(child, outermost)

    walk(root, True)
    return found


def _counts(node: Node) -> bool:
    return all(np.ndim(n.leaf) == 0 for n in node.leaves().values())


def _node(t: Any, path: str, key: str) -> Node:
    if t is not None and jax.tree_util.all_leaves([t]):
        return Node(path, key, [], t)
    kind = type(t) if isinstance(t, tuple) and hasattr(t, "_fields") else None
    children = [
        _node(child, f"{path}/{name}" if path else name, name)
        for name, child in _children(t)
    ]
    return Node(path, key, children, None, kind, kind.__name__ if kind else None)


def _children(t: Any) -> list[tuple[str, Any]]:
    """The children of a container, by name."""
    if t is None or jax.tree_util.all_leaves([t]):
        return []
    pairs = tree_flatten_with_path(t, is_leaf=lambda x: x is not t)[0]
    return [(keystr(keys, simple=True, separator="/"), child) for keys, child in pairs]
