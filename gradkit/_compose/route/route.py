"""Each parameter to its own transform, chosen by its path."""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from gradkit._core import tree
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Params,
    Transform,
    Updates,
    transform,
)

Rule = str | Callable[[str, Any], bool]


class RouteState(NamedTuple):
    """What each rule's transform remembers, in the order of the rules."""

    inner: tuple[optax.OptState, ...]


def route(rules: Mapping[Rule, AnyTransform]) -> Transform:
    r"""Send each parameter to the transform of the one rule that matches its path.

    $$u_i = \mathrm{rules}[r](g_i), \quad r \text{ the only rule that matches } i$$

    Args:
        rules: transforms by rule. A rule is a regular expression searched for in the path, or
            a predicate of path and leaf. Paths are names joined by `/`, the same for dicts,
            linen, NNX and dataclasses: `decoder/layers/0/kernel`.

    Needs: what the transforms need; all get the same extra arguments.
    State: `0` bytes a leaf, `0` once, and the states of the transforms.
    Flops: at most `0` a leaf, and those of the transforms.
    Paper: none.
    Departure: none.
    Limits: a transform sees its own leaves only, so a norm of the whole gradient becomes a norm
        of the group: wrap in `share_norm`, or clip before routing.
    Errors: a parameter that no rule matches, or more than one, names its path and the rules.

    >>> tx = gk.route({"bias": optax.scale(-1.0), "kernel": optax.scale(-2.0)})
    >>> g = {"bias": jnp.ones(()), "kernel": jnp.ones(())}
    >>> {k: float(u) for k, u in tx.update(g, tx.init(g))[0].items()}
    {'bias': -1.0, 'kernel': -2.0}
    """
    inners = [optax.with_extra_args_support(tx) for tx in rules.values()]

    def groups(t: Any) -> list[Any]:
        """`t` once for each rule, with the other rules' leaves masked out."""
        matches = tree.map_with_path(lambda path, x: match(rules, path, x), t)
        return [_keep(t, matches, rule) for rule in range(len(inners))]

    def init(params: Params) -> RouteState:
        return RouteState(tuple(tx.init(t) for tx, t in zip(inners, groups(params))))

    def update(
        updates: Updates, state: RouteState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, RouteState]:
        gs = groups(updates)
        ps = [None] * len(gs) if params is None else groups(params)
        steps = [
            tx.update(g, s, p, **extra)
            for tx, g, s, p in zip(inners, gs, state.inner, ps)
        ]
        u = jax.tree.map(_only, *[u for u, _ in steps], is_leaf=_masked)
        return u, RouteState(tuple(s for _, s in steps))

    return transform(init, update)


def match(rules: Mapping[Rule, Any], path: str, leaf: Any) -> int:
    """The position of the one rule that matches a leaf."""
    found = [
        i
        for i, rule in enumerate(rules)
        if (rule(path, leaf) if callable(rule) else re.search(rule, path))
    ]
    if len(found) != 1:
        names = [getattr(rule, "__name__", rule) for rule in rules]
        raise ValueError(
            f"gradkit.route: leaf {path} must match exactly one rule, got "
            f"{[names[i] for i in found] or 'none'} of {names}. "
            + ("Make the rules exclusive." if found else "Add a rule for it.")
        )
    return found[0]


def _keep(t: Any, matches: Any, rule: int) -> Any:
    return jax.tree.map(lambda x, m: x if m == rule else optax.MaskedNode(), t, matches)


def _masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)


def _only(*candidates: Any) -> Any:
    """The one candidate that is not masked; a mask that was there before stays."""
    return next((x for x in candidates if not _masked(x)), optax.MaskedNode())
