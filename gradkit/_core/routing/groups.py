"""Transform that partitions leaves into groups, one inner transform for each group."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np
import optax

from gradkit._core import check, report, tree
from gradkit._core.call import refusal
from gradkit._core.routing import routes
from gradkit._core.types import (
    KINDS,
    AnyTransform,
    Averaging,
    Extra,
    Params,
    Transform,
    Updates,
    kind_of,
    wrapper,
)

AVERAGING = KINDS.index(Averaging)


class RouteState(NamedTuple):
    """Inner states, in the order of the groups."""

    inner: tuple[optax.OptState, ...]


class Choice(NamedTuple):
    """Group of one leaf, with the name of its transform and the reason."""

    group: int
    transform: str  # its name in `gradkit.routes`
    why: str


def predicate(method: str, f: Callable[[str, Any], Any]) -> Callable[[str, Any], bool]:
    """Wrap `f(path, leaf)` so that every call checks that it returns a bool."""
    subject = f"{getattr(f, '__name__', repr(f))}, a predicate of path and leaf,"
    remedy = "Write lambda path, leaf: leaf.ndim == 2, say."
    wrong = refusal(f, "path", None)
    check.holds(method, wrong is None, f"{subject} must take both", wrong, remedy)

    def holds(path: str, leaf: Any) -> bool:
        result = f(path, leaf)
        dtype = getattr(result, "dtype", None)
        is_bool = isinstance(result, bool) or (
            dtype == np.bool_ and not np.shape(result)
        )
        got = f"{result!r} for leaf {path}"
        check.holds(method, is_bool, f"{subject} must return a bool", got, remedy)
        return bool(result)

    return holds


def grouped(
    method: str,
    transforms: Sequence[AnyTransform],
    choose: Callable[[Params], Sequence[Choice]],
    names: Sequence[str],
) -> Transform:
    """Send every leaf to one of `transforms`; `choose(params)` returns a `Choice` for each leaf.

    `names` are those of the transforms in `gradkit.routes` and `gradkit.metrics`.
    """
    inners = [optax.with_extra_args_support(tx) for tx in transforms]

    def groups(t: Any, choices: Sequence[Choice]) -> list[Any]:
        """`t` once for each transform, with the other groups' leaves masked out."""
        leaves, structure = jax.tree.flatten(t)
        return [
            structure.unflatten(
                x if choice.group == i else optax.MaskedNode()
                for x, choice in zip(leaves, choices, strict=True)
            )
            for i in range(len(inners))
        ]

    def init(params: Params) -> RouteState:
        choices = choose(params)

        def rows() -> list[routes.Row]:
            return [
                routes.Row(path, np.shape(x), None, (), c.transform, c.why)
                for (path, x), c in zip(check.leaves(params), choices)
            ]

        with routes.deciding(rows):
            states = [tx.init(t) for tx, t in zip(inners, groups(params, choices))]
        return RouteState(tuple(states))

    def update(
        updates: Updates, state: RouteState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, RouteState]:
        if params is not None:
            check.alike(method, updates, params)
        choices = choose(updates if params is None else params)
        gs = groups(updates, choices)
        ps = [None] * len(gs) if params is None else groups(params, choices)
        steps = []
        for name, tx, g, s, p in zip(names, inners, gs, state.inner, ps):
            with report.group(name):
                u, s = tx.update(g, s, p, **extra)
                report.sizes(g, u, p)
            steps.append((u, s))
        u = jax.tree.map(_only, *[u for u, _ in steps], is_leaf=tree.is_masked)
        return u, RouteState(tuple(s for _, s in steps))

    kind = min([AVERAGING, *map(kind_of, inners)])  # where all groups are so
    return cast(Transform, KINDS[kind](*wrapper(init, update)))


def _only(*candidates: Any) -> Any:
    """The one candidate that is not masked; a mask that was there before stays."""
    return next((x for x in candidates if not tree.is_masked(x)), optax.MaskedNode())
