"""In what one tree is not like another, in words."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradkit._core.paths import leaf_paths, unboxed

SHOWN = 4  # paths, of as many as there are


def mismatch(got: Any, want: Any) -> str | None:
    """What a tree has that another has not, or the other way around; None where they are alike.

    Alike are trees of the same containers, with leaves of the same paths and shapes.
    """
    gs, ws = _shapes(got), _shapes(want)
    if gs != ws:
        missing, added = _listed(ws.keys() - gs.keys()), _listed(gs.keys() - ws.keys())
        if missing or added:
            others = f"{added} besides" if added else ""
            return ", and ".join(
                filter(None, [missing and f"no leaf {missing}", others])
            )
        path = next(path for path in gs if gs[path] != ws[path])
        return f"shape {gs[path]} instead of {ws[path]} for leaf {path}"
    return _containers(unboxed(got), unboxed(want))


def of_state(
    init: Callable[[Any], Any], updates: Any, state: Any, params: Any
) -> str | None:
    """In what a state is not one that `init` makes of these trees; None where it is, or may be."""
    given = [t for t in (params, updates) if t is not None]
    known = [made for t in given for made in _made(init, t)]
    found = [mismatch(state, made) for made in known]
    if not all(found) or not found:
        return None
    swapped = jax.tree.leaves(updates) and mismatch(state, updates) is None
    got = "a tree like the updates" if swapped else found[0]
    return "None" if state is None else got


def _shapes(t: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each leaf, by its path."""
    return dict(zip(leaf_paths(t), map(np.shape, jax.tree.leaves(t))))


def _made(init: Callable[[Any], Any], t: Any) -> Sequence[Any]:
    """The shapes of what `init` makes of a tree; nothing, if it cannot."""
    try:
        return [jax.eval_shape(lambda t: init(t), t)]  # a new function: traced again
    except Exception:  # whatever it is, it is not about the state
        return []


def _listed(paths: Any) -> str:
    """Paths in order, the first of many."""
    first = [path or "(the tree is one)" for path in sorted(paths)[:SHOWN]]
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return f"{', '.join(first)}{more}" if first else ""


def _containers(got: Any, want: Any, path: Sequence[Any] = ()) -> str | None:
    """Where two trees with the same paths have containers of other types."""
    if jax.tree.structure(got) == jax.tree.structure(want):
        return None
    if type(got) is not type(want):
        where = f" at {jax.tree_util.keystr((*path,), simple=True, separator='/')}"
        kinds = f"{type(got).__name__} instead of {type(want).__name__}"
        return f"{kinds}{where if path else ''}"
    children = zip(_children(got), _children(want))
    found = (_containers(g, w, (*path, *keys)) for (keys, g), (_, w) in children)
    return next(filter(None, found), None)


def _children(t: Any) -> list[tuple[Any, Any]]:
    """What a container holds, with the key of each."""
    return jax.tree_util.tree_flatten_with_path(t, is_leaf=lambda x: x is not t)[0]
