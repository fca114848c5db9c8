"""Wrapper that shows its inner transform every leaf as batches of matrices, or as a vector."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from gradkit._core import numbers
from gradkit._core.call import error, stacked
from gradkit._core.matrix import patterns
from gradkit._core.paths import leaf_paths
from gradkit._core.types import AnyTransform, Extra, Params, Transform, Updates, wrapper

PatternOf = Callable[[str, Any], patterns.Pattern]
_whole: ContextVar[Any] = ContextVar("gradkit.whole", default=None)


class Leaf(NamedTuple):
    """One leaf of a tree, and its pattern."""

    x: Any
    pattern: patterns.Pattern | None  # None where it is left as it is
    names: list[str]  # its path, or a path below it for each block


def viewed(method: str, inner: AnyTransform, pattern_of: PatternOf) -> Transform:
    """Show `inner` a dict of views by path, and join its results to the shapes of the leaves."""
    inner = optax.with_extra_args_support(inner)

    def leaves(t: Any) -> list[Leaf]:
        named = zip(leaf_paths(t), jax.tree.leaves(t))
        return [_leaf(method, pattern_of, path, x) for path, x in named]

    def see(t: Any) -> dict[str, Any]:
        """Views of all leaves of `t`, by name."""
        seen_leaves = leaves(t)
        names = [name for leaf in seen_leaves for name in leaf.names]
        if len(set(names)) < len(names):
            text = f"paths must be distinct, got {sorted(names)}. Rename one."
            raise error(ValueError, method, text)
        return dict(zip(names, [y for leaf in seen_leaves for y in _views(leaf)]))

    def hand_back(views: Any, t: Any) -> Any:
        """Invert `see`: join `views` to a tree like `t`."""
        xs = [_joined(x, [views[name] for name in x.names]) for x in leaves(t)]
        return jax.tree.structure(t).unflatten(xs)

    def init(params: Params) -> optax.OptState:
        with stacked(), _of_whole(params):
            return inner.init(see(params))

    def update(
        updates: Updates, state: optax.OptState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, optax.OptState]:
        ps = None if params is None else see(params)
        extra = {k: see(x) if _alike(x, updates) else x for k, x in extra.items()}
        with stacked(), _of_whole(updates if params is None else params):
            u, state = inner.update(see(updates), state, ps, **extra)
        return hand_back(u, updates), state

    return wrapper(init, update)


def whole_tree() -> Any:
    """The tree whose views the inner transform sees, inside `viewed`."""
    return _whole.get()


@contextlib.contextmanager
def _of_whole(t: Any) -> Iterator[None]:
    token = _whole.set(t)
    try:
        yield
    finally:
        _whole.reset(token)


def names_of(pattern: patterns.Pattern, path: str) -> list[str]:
    """Names of the views of a leaf: its path, or `path/0`, `path/1`, ... for blocks."""
    if not pattern.blocks:
        return [path]
    return [f"{path}/{i}" for i in range(len(pattern.blocks))]


def _leaf(method: str, pattern_of: PatternOf, path: str, x: Any) -> Leaf:
    """The leaf with its pattern; without one if it is not real."""
    if not numbers.is_real(x):
        return Leaf(x, None, [path])
    pattern = pattern_of(path, x)
    try:
        patterns.lengths(pattern, x.shape)
    except ValueError as wrong:
        message = (
            f"leaf {path} must fit {pattern.text!r}, got shape {x.shape}: {wrong}."
        )
        raise error(ValueError, method, f"{message} Correct the pattern.") from None
    return Leaf(x, pattern, names_of(pattern, path))


def _views(leaf: Leaf) -> list[Any]:
    return [leaf.x] if leaf.pattern is None else patterns.split(leaf.pattern, leaf.x)


def _joined(leaf: Leaf, views: list[Any]) -> Any:
    """Join the views of a leaf to its shape."""
    return (
        views[0] if leaf.pattern is None else patterns.join(leaf.pattern, views, leaf.x)
    )


def _alike(x: Any, updates: Updates) -> bool:
    """Whether `x` is a tree like `updates`. A bare number never is: it may be the loss."""
    shapes = lambda t: [np.shape(leaf) for leaf in jax.tree.leaves(t)]
    same = jax.tree.structure(x) == jax.tree.structure(updates)
    return same and shapes(x) == shapes(updates) != [()]
