"""What a state remembers of each leaf, which must be of the leaves that are updated."""

from typing import Any

import jax

from gradkit._core import check
from gradkit._core.called import error


def by_leaf(method: str, updates: Any, t: Any) -> list[Any]:
    """What the tree `t` of a state has in the place of each leaf of `updates`."""
    try:
        return jax.tree.structure(updates).flatten_up_to(t)
    except (TypeError, ValueError):
        raise _wrong(method, f"another tree, {jax.tree.structure(t)}") from None


def alike(method: str, updates: Any, t: Any) -> None:
    """The tree `t` of a state has the shapes of `updates`."""
    for (path, g), x in zip(check.leaves(updates), by_leaf(method, updates, t)):
        of_shape(method, path, x, g.shape)


def of_shape(method: str, path: str, x: Any, shape: tuple[int, ...]) -> None:
    """What is remembered of the leaf at this path is an array of this shape."""
    got = getattr(x, "shape", type(x).__name__)
    if got != shape:
        raise _wrong(method, f"{got} instead of {shape} for leaf {path}")


def _wrong(method: str, got: str) -> Exception:
    what = "state must be of these parameters and arguments"
    remedy = "Pass what init, or the last update, of this transform made for them."
    return error(ValueError, method, f"{what}, got {got}. {remedy}")
