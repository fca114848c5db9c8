"""The paths of leaves, and the boxes in which Flax keeps arrays."""

from collections.abc import Callable
from typing import Any

import jax
from jax.tree_util import keystr, tree_leaves_with_path

from gradkit._core.numbers import Tree

KNOWN = 1024  # structures whose paths are kept: they are asked for at every trace
_known: dict[Any, list[str]] = {}


def leaf_paths(t: Tree, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
    """Each leaf's path as names joined by `/`, the same for dicts, linen, NNX and dataclasses.

    An NNX variable, which is around an array in init only, has no name of its own in it.
    """
    if is_leaf is not None:
        return _leaf_paths(t, is_leaf)
    try:
        structure = jax.tree.structure(t)
        if structure not in _known:
            if len(_known) >= KNOWN:
                _known.clear()
            _known[structure] = _leaf_paths(t, None)
        return [*_known[structure]]
    except TypeError:  # a container's constants have no hash
        return _leaf_paths(t, None)


def _leaf_paths(t: Tree, is_leaf: Callable[[Any], bool] | None) -> list[str]:
    held = {
        keys
        for keys, x in tree_leaves_with_path(t, is_leaf=is_variable)
        if is_variable(x)
    }

    def path(keys: tuple[Any, ...]) -> str:
        within = (i for i in range(len(keys)) if keys[:i] in held)
        i = next(within, len(keys))
        return keystr(keys[:i] + keys[i + 1 :], simple=True, separator="/")

    return [path(keys) for keys, _ in tree_leaves_with_path(t, is_leaf=is_leaf)]


def unboxed(t: Tree) -> Tree:
    """`t`, without the boxes in which Flax keeps arrays and says how these are sharded.

    What has another shape is kept in such a tree, as that sharding is not its own. NNX takes its
    boxes off before an update by itself, linen does not.
    """

    def leaf(x: Any) -> Any:
        held = jax.tree.leaves(x) if is_box(x) else ()
        return held[0] if len(held) == 1 else x

    return jax.tree.map(leaf, t, is_leaf=is_box)


def boxed(t: Tree, like: Tree) -> Tree:
    """`t`, in the boxes that `like` has."""
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(t))


def map_unboxed(f: Callable[..., Any], t: Tree, *rest: Tree) -> Tree:
    """`jax.tree.map`, where only some of these trees have boxes; the result has those of `t`."""
    return boxed(jax.tree.map(f, *map(unboxed, (t, *rest))), t)


def is_box(x: Any) -> bool:
    """Whether this is a variable of an NNX module, or a parameter of linen with its sharding."""
    return is_variable(x) or hasattr(x, "unbox")


def is_variable(x: Any) -> bool:
    """Whether this is a variable of an NNX module."""
    return hasattr(x, "get_metadata")


def map_with_path(f: Callable[..., Any], t: Tree, *rest: Tree) -> Tree:
    """`jax.tree.map` with each leaf's path as the first argument."""
    names = iter(leaf_paths(t))
    return jax.tree.map(lambda *xs: f(next(names), *xs), t, *rest)
