"""A method of matrices that sees every leaf as what the model does with it."""

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
    """Which views are hidden matrices, and why, as a model says."""

    def __init__(self, model: "ModelReading"):
        """Of all views, whether or not a transform sees them all."""
        views = [(name, path) for path in model for name in model.views(path)]
        self.matrices = {name for name, path in views if model[path].is_matrix}
        self.why = {name: f"{model[path].kind} of the model" for name, path in views}

    def __call__(self, path: str, leaf: Any) -> bool:
        """Whether a view is one."""
        del leaf
        return path in self.matrices


def by_model(
    name: str,
    build: Callable[[Mapping[str, Any]], Any],
    arguments: Mapping[str, Any],
    takes: Collection[str],
    model: "ModelReading",
) -> Transform:
    """What the factory `name` builds of `arguments` for stacks of matrices, which it is shown."""
    told = [k for k in ("hidden", "batch_axes") if arguments.get(k) not in (None, ())]
    if told:
        text = f"model must stand alone, got {' and '.join(told)} too"
        raise error(ValueError, name, f"{text}. Leave {' and '.join(told)} out.")
    said: dict[str, Any] = {"batch_axes": (0,)}
    if "hidden" in takes:
        said["hidden"] = Hidden(model)
    if (mask := arguments.get("mask")) is not None:
        said["mask"] = lambda views: _of_views(mask, views, model)
    inner = build({**arguments, **said})
    if "inner" in takes:  # which gets what is no matrix as it is
        inner = split(name, Hidden(model), (0,), inner, arguments["inner"], "inner")

    def pattern_of(path: str, x: Any) -> Any:
        try:
            return model.pattern_of(path, x)
        except ValueError as wrong:
            raise error(ValueError, name, str(wrong)) from None

    return viewed.viewed(name, inner, pattern_of)


def _of_views(mask: Any, views: Mapping[str, Any], model: "ModelReading") -> Any:
    """A mask of parameters, or what makes one of them, as one of their views."""
    params = viewed.whole_tree()
    said = mask(params) if callable(mask) else mask
    each = jax.tree.map(lambda x, p: jax.tree.map(lambda _: x, p), said, params)
    by_path = dict(zip(leaf_paths(params), jax.tree.leaves(each)))
    flags = {
        name: flag
        for path, flag in by_path.items()
        for name in (model.views(path) if path in model else [path])
    }
    return {name: flags[name] for name in views}
