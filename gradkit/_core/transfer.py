"""Parameters and updates of another size: each leaf times a rule's number."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import check, rules, sizes, tree
from gradkit._core.scaling import Optimizer
from gradkit._core.types import Extra, Params, Scalar, Transform, Updates, stateless
from gradkit._core.width import Parametrization


def by_rule(
    method: str,
    parametrization: Parametrization,
    rule: str | rules.Rule,
    optimizer: str | Optimizer,
) -> Transform:
    """A transform that multiplies updates by the learning rates of a rule."""
    found = rules.follow(method, parametrization, rule, optimizer)
    return multiply(method, {path: m.learning_rate for path, m in found.items()})


def multiply(method: str, factors: Mapping[str, Scalar]) -> Transform:
    """A transform that multiplies every leaf by the number under its path."""

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del params, extra

        def leaf(path: str, u: jax.Array) -> jax.Array:
            return at(path, factors, method) * u

        return tree.like(tree.map_with_path(leaf, tree.wide(updates)), updates)

    update.__qualname__ = f"{method}.update"  # which errors on leaves then name
    return stateless(update)


def at(path: str, factors: Mapping[str, Any], method: str) -> Any:
    """What is known under a path."""
    check.holds(
        method,
        path in factors,
        f"leaf {path} must be in the parametrization",
        sorted(factors),
        "Infer it from this model's parameters.",
    )
    return factors[path]


def rescale_init(
    params: Params,
    parametrization: Parametrization,
    base: Any = None,
    rule: str | rules.Rule = "mup",
) -> Params:
    """Bring initial parameters to the size a rule wants: the base's, times its multiplier.

    Every leaf is multiplied by one number, so that its root mean square is as it should be. Doing
    so twice is as once; leaves of zeros stay zeros.

    Args:
        params: initial parameters at the target size, from any initializer.
        parametrization: from `infer_parametrization`.
        base: initial parameters at the base size, or a number in place of each: its
            standard deviation there. Leaves are found by path, those of more layers by that
            of a like one. None only for a rule without a base (`spectral`, `umup`).
        rule: as in `multipliers`.

    >>> base, w = {"w": jnp.ones((2, 2))}, {"w": jnp.full((8, 8), 3.0)}
    >>> grown = gk.infer_parametrization(base=base, target=w)
    >>> print(gk.rescale_init(w, grown, base)["w"][0, 0])
    0.5
    """
    check.holds(
        "rescale_init",
        base is not None or rule in ("spectral", "umup"),
        "base must be given for a rule that is relative to it",
        "None",
        "Pass the initial parameters at the base size, or their standard deviations.",
    )
    found = rules.follow("rescale_init", parametrization, rule, "adam")
    trained, like = _trained(params), _trained(params if base is None else base)
    for path in trained:
        at(path, found, "rescale_init")
    new, old = ({k: jnp.shape(x) for k, x in t.items()} for t in (trained, like))
    twins = sizes.matched(new, old, "gradkit.rescale_init", "params and base")

    def leaf(path: str, p: jax.Array) -> jax.Array:
        if path not in trained:
            return p
        x = p.astype(tree.wide_dtype(p))
        at_base = 1.0 if base is None else like[twins[path]]
        target = found[path].init * mean_size(jnp.asarray(at_base, x.dtype))
        now = mean_size(x)
        factor = jnp.where(now > 0, target / tree.divisible(now), 1)
        return (factor * x).astype(p.dtype)

    return tree.map_with_path(leaf, params)


def _trained(params: Params) -> dict[str, jax.Array]:
    """The leaves that a parametrization knows, or numbers in their place, by path."""

    def known(x: Any) -> bool:
        return isinstance(x, Real) or jnp.issubdtype(x.dtype, jnp.inexact)

    leaves = zip(tree.paths(params), jax.tree.leaves(params))
    return {path: x for path, x in leaves if known(x)}


def mean_size(x: jax.Array) -> jax.Array:
    """The root of the mean square."""
    return jnp.sqrt(jnp.sum(jnp.square(x)) / max(1, x.size))
