"""Routing of hidden matrices to one transform, and of all other leaves to another.

The argument `hidden` selects the matrices. Without it names and shapes decide (`names.by_name`).
"""

import difflib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradkit._core import check, shard
from gradkit._core.paths import leaf_paths
from gradkit._core.routing import groups, routes
from gradkit._core.routing.groups import Choice
from gradkit._core.routing.names import Axes, Decision, MatrixAxes, by_name
from gradkit._core.types import AnyTransform, Extra, Params, Transform, Updates

Hidden = str | Callable[[str, Any], bool] | Mapping[str, bool] | None


def decider(
    method: str, hidden: Hidden, batch_axes: Axes
) -> Callable[[Params], list[Decision]]:
    """Make the function that decides for every leaf, from the argument `hidden` of `method`."""
    check.matrix(method, {}, batch_axes)
    select, axes = _selector(method, hidden), tuple(batch_axes)

    def decide_unchecked(path: str, x: Any) -> Decision:
        decision, is_selected = by_name(path, np.shape(x), axes), select(path, x)
        if is_selected is None:
            return decision
        if is_selected and decision.vector and isinstance(hidden, str):
            return decision._replace(reason=f"matched, but {decision.reason}")
        if is_selected and decision.view is None:
            suffix = f" besides batch_axes {axes}" if axes else ""
            message = (
                f"leaf {path} must have at least 2 axes{suffix} to be a hidden matrix"
            )
            got = f"shape {np.shape(x)}"
            raise _error(method, message, got, "Leave it out of hidden.")
        reasons = getattr(hidden, "why", {})
        return Decision(
            is_selected, reasons.get(path, "hidden= says so"), decision.view
        )

    def decide(path: str, x: Any) -> Decision:
        decision = decide_unchecked(path, x)
        if decision.hidden:
            check.matrix(method, {path: x}, axes)
        return decision

    def decide_all(params: Params) -> list[Decision]:
        try:
            check.real(method, params)
        except TypeError as error:
            elsewhere = "Or send it elsewhere with gradkit.route."
            raise TypeError(f"{error} {elsewhere}") from None
        if isinstance(hidden, str | Mapping):
            _check_paths(method, hidden, params)
        return [decide(path, x) for path, x in check.leaves(params)]

    return decide_all


def _selector(method: str, hidden: Hidden) -> Callable[[str, Any], bool | None]:
    """Make a function of path and leaf: the bool that `hidden` gives it, None for the default."""
    message = (
        "hidden must be an expression, a predicate of path and leaf, or a dict of bools"
    )
    match hidden:
        case None:
            return lambda path, x: None
        case str():
            try:
                pattern = re.compile(hidden)
            except re.error as error:
                got = f"{hidden!r}: {error}"
                raise _error(method, message, got, "Correct it.") from None
            return lambda path, x: bool(pattern.search(path))
        case Mapping() if all(isinstance(v, bool) for v in hidden.values()):
            return lambda path, x: hidden.get(path)
        case _ if callable(hidden):
            return groups.predicate(method, hidden)
    remedy = "Write 'up|down', say, or leave it out to go by names."
    raise _error(method, message, repr(hidden), remedy)


def split(
    method: str,
    hidden: Hidden,
    batch_axes: Axes,
    matrices: AnyTransform,
    others: AnyTransform,
    called: str = "adam",
) -> Transform:
    """Send hidden matrices to the transform `matrices`, all other leaves to `others`.

    `matrices` gets each leaf in matrix shape, `others` in its own. `called` is the name of
    `others` in `gradkit.routes`.
    """
    decide, names = decider(method, hidden, batch_axes), ("matrices", called)

    def choose(params: Params) -> list[Choice]:
        return [
            Choice(0, names[0], decision.reason)
            if decision.hidden
            else Choice(1, names[1], decision.reason)
            for decision in decide(params)
        ]

    transforms = seen(method, matrices, batch_axes), others
    return groups.grouped(method, transforms, choose, names)


def seen(method: str, inner: AnyTransform, batch_axes: Axes = ()) -> Transform:
    """Show `inner` every leaf as the matrices that its name and shape suggest.

    The matrices have as many axes as the leaf. State of `inner` in the shape of the matrices is
    kept in the shape of the leaf, so that it can be sharded as the parameter is.
    """
    check.matrix(method, {}, batch_axes)
    inner = optax.with_extra_args_support(inner)
    axes = tuple(batch_axes)

    def matrix_axes(path: str, x: Any) -> MatrixAxes | None:
        return by_name(path, np.shape(x), axes).view

    def of_trees(f: Callable[..., jax.Array], like: Any, t: Any) -> Any:
        """`f(view, y, x)` of each leaf `y` of the trees in `t` that have `like`'s leaves `x`."""
        xs, structure = jax.tree.flatten(like)
        views = itertools.starmap(matrix_axes, check.leaves(like))
        views = [v if v and len(v.cols) > 1 else None for v in views]

        def is_like(t: Any) -> bool:
            return jax.tree.structure(t) == structure

        def map_tree(t: Any) -> Any:
            if not is_like(t):
                return t
            ys = jax.tree.leaves(t)
            return structure.unflatten(
                y if matrix_axes is None else f(matrix_axes, y, x)
                for matrix_axes, y, x in zip(views, ys, xs)
            )

        return jax.tree.map(map_tree, t, is_leaf=is_like) if any(views) else t

    def init(params: Params) -> optax.OptState:
        def rows() -> Iterator[routes.Row]:
            for path, x in check.leaves(params):
                if v := matrix_axes(path, x):
                    batch, *matrix = v.lengths(np.shape(x))
                    yield routes.unrouted(path, np.shape(x), (*matrix,), batch)

        leaves = check.leaves(params)
        matrices = {k: x for k, x in leaves if np.ndim(x) >= 2 + len(axes)}
        check.matrix(method, matrices, axes)
        with routes.deciding(rows):
            state = inner.init(of_trees(_as_matrices, params, params))
        return of_trees(_as_leaf, params, state)

    def update(
        updates: Updates, state: optax.OptState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, optax.OptState]:
        *viewed_args, extra = of_trees(
            _as_matrices, updates, (updates, state, params, extra)
        )
        return of_trees(_as_leaf, updates, inner.update(*viewed_args, **extra))

    return inner._replace(init=init, update=update)


def _matrix_shape(view: MatrixAxes, shape: Axes) -> Axes:
    """Shape of a leaf as matrices: `[*batch, *rows, 1, ..., cols]`."""
    batch, _, cols = view.lengths(shape)
    rows = (shape[axis] for axis in view.rows)
    return (*batch, *rows, *[1] * (len(view.cols) - 1), cols)


def _as_matrices(axes: MatrixAxes, y: Any, x: Any) -> Any:
    """Reshape `y` to matrices if it has the shape of `x`; batch axes stay where they are in `x`."""
    if y.shape != x.shape:
        return y
    if isinstance(y, jax.ShapeDtypeStruct):
        return jax.eval_shape(lambda y: _as_matrices(axes, y, y), y)
    order = (*axes.batch, *axes.rows, *axes.cols)
    front = jnp.transpose(shard.whole(y), order).reshape(_matrix_shape(axes, x.shape))
    return jnp.moveaxis(front, range(len(axes.batch)), axes.batch)


def _as_leaf(axes: MatrixAxes, y: Any, x: Any) -> Any:
    """Invert `_as_matrices`: reshape `y` to the shape of `x`, sharded like `x`."""
    matrix_axes = [axis for axis in range(y.ndim) if axis not in axes.batch]
    order = (*axes.batch, *matrix_axes)
    if y.ndim != x.ndim or tuple(y.shape[i] for i in order) != _matrix_shape(
        axes, x.shape
    ):
        return y
    order_apart = (*axes.batch, *axes.rows, *axes.cols)
    apart = jnp.transpose(shard.whole(y), order).reshape(
        [x.shape[i] for i in order_apart]
    )
    leaf = jnp.transpose(apart, [order_apart.index(i) for i in range(x.ndim)])
    return leaf if isinstance(x, jax.ShapeDtypeStruct) else shard.alike(leaf, x)


def _error(method: str, what: str, got: str, remedy: str) -> ValueError:
    return ValueError(f"gradkit.{method}: {what}, got {got}. {remedy}")


def _check_paths(method: str, hidden: str | Mapping[str, bool], params: Params) -> None:
    """Raise if `hidden` names no parameter: a dict by each path, an expression in some path.

    Nothing is checked where leaves are masked out, as in `optax.partition`.
    """
    masked = lambda x: isinstance(x, optax.MaskedNode)
    leaves = jax.tree.leaves(params, is_leaf=masked)
    paths = leaf_paths(params, is_leaf=masked)
    if isinstance(hidden, str):
        unknown = [] if any(re.search(hidden, path) for path in paths) else [hidden]
        message = "hidden must be found in the path of a parameter"
    else:
        unknown = [path for path in hidden if path not in paths]
        message = "every path in hidden must be a parameter's"
    if unknown and leaves and not any(map(masked, leaves)):
        closest = difflib.get_close_matches(unknown[0], paths, cutoff=0.4) or paths[:3]
        raise _error(method, message, repr(unknown), f"The closest are {closest}.")
