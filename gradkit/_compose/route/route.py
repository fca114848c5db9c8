"""Each parameter to its own transform, chosen by its path."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

from gradkit._core import check, tree
from gradkit._core.factory import factory
from gradkit._core.paths import leaf_paths
from gradkit._core.routing import groups, routes
from gradkit._core.routing.groups import Choice
from gradkit._core.types import AnyTransform, Params, Transform

Rule = str | re.Pattern[str] | Callable[[str, Any], bool]


@factory
def route(
    rules: Mapping[Rule, AnyTransform], *, default: AnyTransform | None = None
) -> Transform:
    r"""Send each parameter to the transform of the one rule that matches its path.

    $$u_i = \mathrm{rules}[r](g_i), \quad r \text{ the only rule that matches } i$$

    Args:
        rules: transforms by rule. A rule is a regular expression searched for in the path, or
            a predicate of path and leaf. Paths are names joined by `/`, the same for dicts,
            linen, NNX and dataclasses: `decoder/layers/0/kernel`.
        default: the transform of parameters that no rule matches; without one, an error.

    Needs: what the transforms need; all get the same extra arguments.
    State: `0` bytes a leaf, `0` once, and the states of the transforms.
    Flops: at most `0` a leaf, and those of the transforms.
    Paper: none.
    Departure: none.
    Limits: a transform sees its own leaves only, so a norm of the whole gradient becomes a norm
        of the group: clip within the group, and wrap the route in `share_norm`. Leaves of any
        dtype are passed on, and each transform checks its own. A predicate sees parameters where
        these are given, else gradients.
    Errors: a parameter that more than one rule matches, or none, names its path and the rules. A
        rule that no parameter matches is told by a warning from `init`, and below the table of
        `gk.routes`.

    >>> tx = gk.route({"bias": optax.scale(-1.0)}, default=optax.scale(-2.0))
    >>> g = {"bias": jnp.ones(()), "kernel": jnp.ones(())}
    >>> {k: float(u) for k, u in tx.update(g, tx.init(g))[0].items()}
    {'bias': -1.0, 'kernel': -2.0}
    """
    check.holds(
        "route",
        isinstance(rules, Mapping) and (bool(rules) or default is not None),
        "rules must map expressions or predicates to transforms",
        repr(rules),
        "Pass a dict such as {'kernel': gradkit.muon(), 'bias': gradkit.adamw()}.",
    )
    named = [(_name(rule), _checked(rule)) for rule in rules]
    for (name, _), tx in zip(named, rules.values()):
        check.transform("route", f"what rule {name} sends to", tx)
    transforms, names = [*rules.values()], [*map(_shown, rules)]
    if default is not None:
        transforms, names = [*transforms, default], [*names, "default"]

    def choose(params: Params) -> list[Choice]:
        leaves = zip(leaf_paths(params), jax.tree.leaves(params))
        return [_choice(named, default is not None, path, x) for path, x in leaves]

    tx = groups.grouped("route", transforms, choose, names)

    def init(params: Params) -> optax.OptState:
        _tell_unused([name for name, _ in named], choose(params), params)
        return tx.init(params)

    return tx._replace(init=init)


def _tell_unused(
    names: Sequence[str], choices: Sequence[Choice], params: Params
) -> None:
    """Tell of each rule that no parameter matches, unless leaves are masked out, or there is one."""
    masked = jax.tree.leaves(params, is_leaf=tree.is_masked)
    if len(choices) < 2 or any(map(tree.is_masked, masked)):
        return
    paths = leaf_paths(params)
    for i in {*range(len(names))} - {choice.group for choice in choices}:
        near = difflib.get_close_matches(names[i], paths, 3, cutoff=0.4) or paths[:3]
        what = f"rule {names[i]} should match a parameter, and matches none"
        remedy = f"The closest paths are {', '.join(near)}."
        routes.tell_unused(f"gradkit.route: {what}. {remedy}")


def _choice(
    rules: Sequence[tuple[str, Rule]], default: bool, path: str, leaf: Any
) -> Choice:
    """The index, name and reason of the one rule that matches; the default is last."""
    matches = [
        i
        for i, (_, rule) in enumerate(rules)
        if (rule(path, leaf) if callable(rule) else re.search(rule, path))
    ]
    if not matches and default:
        return Choice(len(rules), "default", "no rule matches")
    names = [name for name, _ in rules]
    check.holds(
        "route",
        len(matches) == 1,
        f"leaf {path} must match exactly one rule",
        f"{_listed([names[i] for i in matches]) if matches else 'none'} of {_listed(names)}",
        "Make the rules exclusive." if matches else "Add a rule for it, or a default.",
    )
    name, rule = rules[matches[0]]
    if not callable(rule):
        return Choice(matches[0], _shown(rule), "found in its path")
    return Choice(matches[0], name, "its predicate says so")


def _shown(rule: Rule) -> str:
    """The name of a group in tables: the expression, or the predicate's name."""
    if isinstance(rule, str):
        return rule
    return rule.pattern if isinstance(rule, re.Pattern) else _name(rule)


def _name(rule: Any) -> str:
    """A rule as it is shown: its text in quotes, or its name."""
    if check.is_transform(rule):
        return "a transform"
    text = rule.pattern if isinstance(rule, re.Pattern) else rule
    return getattr(rule, "__name__", repr(text))


def _listed(names: Sequence[str]) -> str:
    return f"[{', '.join(names)}]"


def _checked(rule: Any) -> Rule:
    """The rule, checked: an expression, or a predicate that returns a bool."""
    if callable(rule):
        return groups.predicate("route", rule)
    requirement = "a rule must be a regular expression or a predicate of path and leaf"
    is_text = isinstance(rule, str | re.Pattern)
    remedy = "Rules are the keys of the dict, transforms its values."
    check.holds("route", is_text, requirement, _name(rule), remedy)
    check.expression("route", "a rule", rule)
    return rule
