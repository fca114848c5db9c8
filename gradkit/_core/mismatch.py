"""The first difference between two trees, in words for an error message."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from gradkit._core.paths import leaf_paths, unboxed

SHOWN = 4  # paths that a message lists


def mismatch(got: Any, want: Any) -> str | None:
    """A phrase for how `got` differs from `want`, or None if they are alike.

    Alike trees have the same containers, leaf paths and leaf shapes.
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
    """A phrase for how `state` differs from what `init` makes; None if it may match."""
    trees = [t for t in (params, updates) if t is not None]
    states = [made for t in trees for made in _state_shapes(init, t)]
    differences = [mismatch(state, made) for made in states]
    if not all(differences) or not differences:
        return None
    if state is None:
        return "None"
    for name in ("state", "opt_state"):  # of `restore_state`, of a TrainState
        held = getattr(state, name, None)
        if held is not None and any(mismatch(held, made) is None for made in states):
            return f"a {type(state).__name__}, whose .{name} it is"
    swapped = jax.tree.leaves(updates) and mismatch(state, updates) is None
    return "a tree like the updates" if swapped else differences[0]


def _shapes(t: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each leaf, by its path."""
    return dict(zip(leaf_paths(t), map(np.shape, jax.tree.leaves(t))))


def _state_shapes(init: Callable[[Any], Any], t: Any) -> Sequence[Any]:
    """`[jax.eval_shape(init, t)]`, or `[]` if `init` raises."""
    try:
        return [jax.eval_shape(lambda t: init(t), t)]  # a new function: traced again
    except Exception:  # such an error is not about the state
        return []


def _listed(paths: Any) -> str:
    """The first `SHOWN` paths in order, and the number of others."""
    first = [path or "(the tree is one)" for path in sorted(paths)[:SHOWN]]
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    return f"{', '.join(first)}{more}" if first else ""


def _containers(got: Any, want: Any, path: Sequence[Any] = ()) -> str | None:
    """A phrase for the first container whose type differs, or None; the paths are equal."""
    if jax.tree.structure(got) == jax.tree.structure(want):
        return None
    if type(got) is not type(want):
        where = f" at {jax.tree_util.keystr((*path,), simple=True, separator='/')}"
        kinds = f"{type(got).__name__} instead of {type(want).__name__}"
        return f"{kinds}{where if path else ''}"
    children = zip(_children(got), _children(want))
    differences = (_containers(g, w, (*path, *keys)) for (keys, g), (_, w) in children)
    return next(filter(None, differences), None)


def _children(t: Any) -> list[tuple[Any, Any]]:
    """Children of a container, each with its key path."""
    return jax.tree_util.tree_flatten_with_path(t, is_leaf=lambda x: x is not t)[0]
