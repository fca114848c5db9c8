"""Which leaves are the matrices between hidden layers, and how a transform sees them so.

Embeddings and readouts, biases and gains are left to another transform. Names and shapes decide,
as `names` reads them, with a way out: `hidden=`.
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
from gradkit._core.routing.names import Axes, Decision, View, by_name
from gradkit._core.types import AnyTransform, Extra, Params, Transform, Updates, wrapper

Hidden = str | Callable[[str, Any], bool] | Mapping[str, bool] | None


def decider(
    method: str, hidden: Hidden, batch_axes: Axes
) -> Callable[[Params], list[Decision]]:
    """What decides about every leaf of a tree, from the argument `hidden` of `method`."""
    check.matrix(method, {}, batch_axes)
    says, axes = _reader(method, hidden), tuple(batch_axes)

    def said_of(path: str, x: Any) -> Decision:
        decision, said = by_name(path, np.shape(x), axes), says(path, x)
        if said is None:
            return decision
        if said and decision.vector and isinstance(hidden, str):
            return decision._replace(reason=f"matched, but {decision.reason}")
        if said and decision.view is None:
            besides = f" besides batch_axes {axes}" if axes else ""
            what = (
                f"leaf {path} must have at least 2 axes{besides} to be a hidden matrix"
            )
            got = f"shape {np.shape(x)}"
            raise _wrong(method, what, got, "Leave it out of hidden.")
        reasons = getattr(hidden, "why", {})
        return Decision(said, reasons.get(path, "hidden= says so"), decision.view)

    def decide(path: str, x: Any) -> Decision:
        decision = said_of(path, x)
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
            _check_known(method, hidden, params)
        return [decide(path, x) for path, x in check.leaves(params)]

    return decide_all


def _reader(method: str, hidden: Hidden) -> Callable[[str, Any], bool | None]:
    """What `hidden` says of a path and a leaf: None where it says nothing."""
    said = (
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
                raise _wrong(method, said, got, "Correct it.") from None
            return lambda path, x: bool(pattern.search(path))
        case Mapping() if all(isinstance(v, bool) for v in hidden.values()):
            return lambda path, x: hidden.get(path)
        case _ if callable(hidden):
            return groups.predicate(method, hidden)
    remedy = "Leave it out to go by names, or name it in static_args of "
    raise _wrong(method, said, repr(hidden), f"{remedy}optax.inject_hyperparams.")


def split(
    method: str,
    hidden: Hidden,
    batch_axes: Axes,
    matrices: AnyTransform,
    others: AnyTransform,
    called: str = "adam",
) -> Transform:
    """Hidden matrices to one transform of `method`, all other leaves to another.

    The first sees each leaf as the matrix it is, the second, `called` so in `gradkit.routes`,
    sees it as it is.
    """
    decide = decider(method, hidden, batch_axes)

    def choose(params: Params) -> list[Choice]:
        return [
            Choice(0, "matrices", decision.reason)
            if decision.hidden
            else Choice(1, called, decision.reason)
            for decision in decide(params)
        ]

    return groups.grouped(method, (seen(method, matrices, batch_axes), others), choose)


def seen(method: str, inner: AnyTransform, batch_axes: Axes = ()) -> Transform:
    """Let the `inner` of `method` see every leaf as the matrices that it is by name.

    They have as many axes as the leaf.

    What `inner` remembers of a leaf in the shape of its matrices is kept in the shape of the
    leaf, so that it can be sharded as the parameter is.
    """
    check.matrix(method, {}, batch_axes)
    inner = optax.with_extra_args_support(inner)
    axes = tuple(batch_axes)

    def view(path: str, x: Any) -> View | None:
        return by_name(path, np.shape(x), axes).view

    def of_trees(f: Callable[..., jax.Array], like: Any, t: Any) -> Any:
        """`f(view, y, x)` of each leaf `y` of the trees in `t` that have `like`'s leaves `x`."""
        xs, structure = jax.tree.flatten(like)
        views = itertools.starmap(view, check.leaves(like))
        views = [v if v and len(v.cols) > 1 else None for v in views]

        def is_like(t: Any) -> bool:
            return jax.tree.structure(t) == structure

        def each(t: Any) -> Any:
            if not is_like(t):
                return t
            ys = jax.tree.leaves(t)
            return structure.unflatten(
                y if view is None else f(view, y, x)
                for view, y, x in zip(views, ys, xs)
            )

        return jax.tree.map(each, t, is_leaf=is_like) if any(views) else t

    def init(params: Params) -> optax.OptState:
        def rows() -> Iterator[routes.Row]:
            for path, x in check.leaves(params):
                if v := view(path, x):
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
        *given, extra = of_trees(_as_matrices, updates, (updates, state, params, extra))
        return of_trees(_as_leaf, updates, inner.update(*given, **extra))

    return wrapper(init, update)


def _shape(view: View, shape: Axes) -> Axes:
    """That of a leaf seen as matrices: `[*batch, *rows, 1, ..., cols]`."""
    batch, _, cols = view.lengths(shape)
    rows = (shape[axis] for axis in view.rows)
    return (*batch, *rows, *[1] * (len(view.cols) - 1), cols)


def _as_matrices(view: View, y: Any, x: Any) -> Any:
    """`y` in the shape of its matrices, batch axes where they are in `x`, if shaped like `x`."""
    if y.shape != x.shape:
        return y
    if isinstance(y, jax.ShapeDtypeStruct):
        return jax.eval_shape(lambda y: _as_matrices(view, y, y), y)
    order = (*view.batch, *view.rows, *view.cols)
    front = jnp.transpose(shard.whole(y), order).reshape(_shape(view, x.shape))
    return jnp.moveaxis(front, range(len(view.batch)), view.batch)


def _as_leaf(view: View, y: Any, x: Any) -> Any:
    """What `_as_matrices` makes of `x`, in the shape of `x`, sharded like it."""
    rest = [axis for axis in range(y.ndim) if axis not in view.batch]
    order = (*view.batch, *rest)
    if y.ndim != x.ndim or tuple(y.shape[i] for i in order) != _shape(view, x.shape):
        return y
    axes = (*view.batch, *view.rows, *view.cols)
    apart = jnp.transpose(shard.whole(y), order).reshape([x.shape[i] for i in axes])
    leaf = jnp.transpose(apart, [axes.index(i) for i in range(x.ndim)])
    return leaf if isinstance(x, jax.ShapeDtypeStruct) else shard.alike(leaf, x)


def _wrong(method: str, what: str, got: str, remedy: str) -> ValueError:
    return ValueError(f"gradkit.{method}: {what}, got {got}. {remedy}")


def _check_known(method: str, hidden: str | Mapping[str, bool], params: Params) -> None:
    """Every path is one of a parameter, unless some are masked out, as in `optax.partition`.

    An expression is found in one of them.
    """
    masked = lambda x: isinstance(x, optax.MaskedNode)
    leaves = jax.tree.leaves(params, is_leaf=masked)
    known = leaf_paths(params, is_leaf=masked)
    if isinstance(hidden, str):
        unknown = [] if any(re.search(hidden, path) for path in known) else [hidden]
        what = "hidden must be found in the path of a parameter"
    else:
        unknown = [path for path in hidden if path not in known]
        what = "every path in hidden must be a parameter's"
    if unknown and leaves and not any(map(masked, leaves)):
        near = difflib.get_close_matches(unknown[0], known, cutoff=0.4) or known[:3]
        raise _wrong(method, what, repr(unknown), f"The closest are {near}.")
