"""Paths of leaves, and Flax's boxes around arrays (`nnx.Variable`, `nn.Partitioned`)."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.tree_util import keystr, tree_leaves_with_path

from gradkit._core.numbers import Tree

CACHED = 1024  # structures in the cache: every trace needs their paths
_cache: dict[Any, list[str]] = {}


def leaf_paths(t: Tree, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
    """Paths of all leaves, names joined by `/`: the same for dicts, linen, NNX and dataclasses.

    An NNX variable adds a key to the path, which is left out: only `init` sees variables.
    """
    if is_leaf is not None:
        return _leaf_paths(t, is_leaf)
    try:
        structure = jax.tree.structure(t)
        if structure not in _cache:
            if len(_cache) >= CACHED:
                _cache.clear()
            _cache[structure] = _leaf_paths(t, None)
        return [*_cache[structure]]
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
    """`t`, with each Flax box, which holds sharding metadata, replaced by its array.

    The metadata does not fit state of another shape than its parameter, so such state has no box.
    NNX removes its boxes before an update, linen does not.
    """

    def leaf(x: Any) -> Any:
        is_masked = lambda y: isinstance(y, optax.MaskedNode)  # in place of an array
        held = jax.tree.leaves(x, is_leaf=is_masked) if is_box(x) else ()
        return held[0] if len(held) == 1 else x

    return jax.tree.map(leaf, t, is_leaf=is_box)


def boxed(t: Tree, like: Tree) -> Tree:
    """Leaves of `t` in the structure of `like`, with its boxes."""
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(t))


def map_unboxed(f: Callable[..., Any], t: Tree, *trees: Tree) -> Tree:
    """`jax.tree.map` over trees with or without boxes; the result has the boxes of `t`."""
    return boxed(jax.tree.map(f, *map(unboxed, (t, *trees))), t)


def is_box(x: Any) -> bool:
    """Whether `x` is an `nnx.Variable` or a linen box such as `nn.Partitioned`."""
    return is_variable(x) or hasattr(x, "unbox")


def is_variable(x: Any) -> bool:
    """Whether `x` is an `nnx.Variable`."""
    return hasattr(x, "get_metadata")


def map_with_path(f: Callable[..., Any], t: Tree, *trees: Tree) -> Tree:
    """`jax.tree.map` with each leaf's path as the first argument."""
    names = iter(leaf_paths(t))
    return jax.tree.map(lambda *xs: f(next(names), *xs), t, *trees)
