"""Methods of matrices with `model=`: they see every leaf as the matrices that were read."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import jax

from gradkit._core.call import error
from gradkit._core.paths import leaf_paths
from gradkit._core.routing import viewed
from gradkit._core.routing.hidden import split
from gradkit._core.types import Transform

if TYPE_CHECKING:
    from gradkit.parametrization.reading import ModelReading


class Hidden:
    """Predicate of views for `hidden=`: whether `read_model` found a hidden matrix, and `why`."""

    def __init__(self, model: "ModelReading"):
        """Collect all views of `model`; a transform may see fewer."""
        views = [(name, path) for path in model for name in model.views(path)]
        self.matrices = {name for name, path in views if model[path].is_matrix}
        self.why = {name: f"{model[path].kind} of the model" for name, path in views}

    def __call__(self, path: str, leaf: Any) -> bool:
        """Whether the view at `path` is a hidden matrix."""
        del leaf
        return path in self.matrices


def by_model(
    name: str,
    build: Callable[[Mapping[str, Any]], Any],
    arguments: Mapping[str, Any],
    takes: Collection[str],
    model: "ModelReading",
) -> Transform:
    """Build the transform `name` for stacks of matrices, and show it the views of `model`."""
    forbidden = [
        k for k in ("hidden", "batch_axes") if arguments.get(k) not in (None, ())
    ]
    if forbidden:
        text = f"model must stand alone, got {' and '.join(forbidden)} too"
        raise error(ValueError, name, f"{text}. Leave {' and '.join(forbidden)} out.")
    overrides: dict[str, Any] = {"batch_axes": (0,)}
    if "hidden" in takes:
        overrides["hidden"] = Hidden(model)
    if (mask := arguments.get("mask")) is not None:
        overrides["mask"] = lambda views: _of_views(mask, views, model)
    inner = build({**arguments, **overrides})
    if "inner" in takes:  # all other leaves go to `inner` unchanged
        inner = split(name, Hidden(model), (0,), inner, arguments["inner"], "inner")

    def pattern_of(path: str, x: Any) -> Any:
        try:
            return model.pattern_of(path, x)
        except ValueError as wrong:
            raise error(ValueError, name, str(wrong)) from None

    return viewed.viewed(name, inner, pattern_of)


def _of_views(mask: Any, views: Mapping[str, Any], model: "ModelReading") -> Any:
    """Convert a mask of parameters, or a function that makes one, to a mask of their views."""
    params = viewed.whole_tree()
    mask_of_params = mask(params) if callable(mask) else mask
    mask_of_leaves = jax.tree.map(
        lambda x, p: jax.tree.map(lambda _: x, p), mask_of_params, params
    )
    by_path = dict(zip(leaf_paths(params), jax.tree.leaves(mask_of_leaves)))
    flags = {
        name: flag
        for path, flag in by_path.items()
        for name in (model.views(path) if path in model else [path])
    }
    return {name: flags[name] for name in views}
