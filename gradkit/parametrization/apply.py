"""Scaling of initial parameters and of updates: each leaf times the multiplier of a rule."""

import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, numbers, paths, shard
from gradkit._core.call import error
from gradkit._core.numbers import is_trained
from gradkit._core.paths import leaf_paths
from gradkit._core.types import Extra, Params, Scalar, Transform, Updates, stateless
from gradkit.parametrization import matching, rules
from gradkit.parametrization.parameter import Parameter, Parametrization
from gradkit.parametrization.scaling import Optimizer


def by_rule(
    method: str,
    parametrization: Parametrization,
    rule: str | rules.Rule,
    optimizer: str | Optimizer,
) -> Transform:
    """Make a transform that multiplies updates by the learning-rate multipliers of a rule."""
    multipliers = rules.follow(method, parametrization, rule, optimizer)
    rates = {path: m.learning_rate for path, m in multipliers.items()}
    return multiply(method, parametrization, rates)


def multiply(
    method: str, parametrization: Parametrization, factors: Mapping[str, Scalar]
) -> Transform:
    """Make a transform that multiplies every leaf by the factor under its path."""

    def check_params(params: Params) -> None:
        fits(method, parametrization, check.leaves(params))

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del params, extra
        leaves = check.leaves(numbers.wide(updates))
        fits(method, parametrization, leaves)
        new = [factors[path] * u for path, u in leaves]
        return numbers.like(jax.tree.structure(updates).unflatten(new), updates)

    return stateless(update, check_params)


def fits(
    method: str, parametrization: Parametrization, leaves: Iterable[tuple[str, Any]]
) -> None:
    """Check that every leaf is in the parametrization, in the shape of its target.

    Shapes are not checked inside `shard_map`, where a device sees shards.
    """
    for path, x in leaves:
        parameter = parametrization.get(path)
        if parameter is None:
            text = (
                f"leaf {path} must be in the parametrization, got "
                f"{sorted(parametrization)}. Infer it from this model's parameters."
            )
            raise error(ValueError, method, text)
        if np.shape(x) != parameter.shape and np.size(x) and not shard.in_parts():
            text = (
                f"leaf {path} must have the shape of the parametrization's target, "
                f"{parameter.shape}, got {np.shape(x)}. Infer a parametrization whose target "
                "has the size of this model."
            )
            raise error(ValueError, method, text)


def rescale_init(
    params: Params,
    parametrization: Parametrization,
    base: Any = None,
    rule: str | rules.Rule = "mup",
    *,
    keep: str | None = None,
) -> Params:
    """Scale initial parameters to the RMS that a rule asks for: the base RMS times its multiplier.

    Every leaf is multiplied by one number. Scaling again changes nothing. Leaves of zeros stay
    zeros. A vector of at least 8 entries stays as the model made it if its entries differ in size
    and are sorted or not centered at zero, as frequencies, spectra, decays and step sizes are.

    Args:
        params: initial parameters at the target size, from any initializer.
        parametrization: from `infer_parametrization`.
        base: initial parameters at the base size, or a number in place of each: its
            standard deviation there. Leaves are found by path, those of added layers by the
            path of a like one. None only for a rule without a base (`spectral`, `umup`).
        rule: as in `multipliers`.
        keep: a regular expression, searched for in the path; leaves with a match stay as they are.

    >>> base, w = {"w": jnp.ones((2, 2))}, {"w": jnp.full((8, 8), 3.0)}
    >>> grown = gk.infer_parametrization(base=base, target=w)
    >>> print(gk.rescale_init(w, grown, base)["w"][0, 0])
    0.5
    """
    method = "rescale_init"
    check.holds(
        method,
        base is not None or rule in ("spectral", "umup"),
        "base must be given for a rule that is relative to it",
        "None",
        "Pass the initial parameters at the base size, or their standard deviations.",
    )
    multipliers = rules.follow(method, parametrization, rule, "adam")
    trained, at_base_size = _trained(params), _trained(params if base is None else base)
    fits(method, parametrization, trained.items())
    if keep is not None:
        check.expression(method, "keep", keep)
        message = "keep must be found in the path of a parameter"
        is_known = any(re.search(keep, path) for path in trained)
        check.holds(
            method, is_known, message, repr(keep), f"Choose from {sorted(trained)}."
        )
    shapes, base_shapes = (
        {k: jnp.shape(x) for k, x in t.items()} for t in (trained, at_base_size)
    )
    base_paths = matching.matched(
        shapes, base_shapes, f"gradkit.{method}", "params and base"
    )
    for path, base_path in base_paths.items():
        _check_base_shape(
            path,
            base_shapes[base_path] if base is not None else (),
            parametrization[path],
        )

    def leaf(path: str, p: jax.Array) -> jax.Array:
        is_kept = keep is not None and re.search(keep, path)
        if path not in trained or is_kept:
            return p
        x = p.astype(numbers.wide_dtype(p))
        at_base = 1.0 if base is None else at_base_size[base_paths[path]]
        target = multipliers[path].init * mean_size(jnp.asarray(at_base, x.dtype))
        current = mean_size(x)
        factor = jnp.where(current > 0, target / numbers.divisible(current), 1)
        vector = parametrization[path].role in ("vector", "fixed")
        factor = jnp.where(vector & ~_is_random_scale(x), 1, factor)
        return (factor.astype(x.dtype) * x).astype(p.dtype)

    return paths.map_with_path(leaf, params)


def _check_base_shape(path: str, shape: tuple[int, ...], parameter: Parameter) -> None:
    check.holds(
        "rescale_init",
        shape in ((), parameter.base),
        f"base at {path} must have the shape of the parametrization's base, {parameter.base}",
        shape,
        "Pass the parameters of the size that the parametrization was inferred from.",
    )


def _is_random_scale(x: jax.Array) -> jax.Array:
    """Whether entries have one magnitude, are unsorted and centered at zero, or are too few."""
    flat = x.ravel()
    size = jnp.abs(flat)
    is_constant = jnp.max(size, initial=0) - jnp.min(
        size, initial=jnp.inf
    ) <= 1e-3 * mean_size(x)
    projected = jnp.real(flat) + jnp.imag(flat)
    steps = jnp.diff(projected)
    is_ordered = jnp.all(steps >= 0) | jnp.all(steps <= 0)
    chance = 4 / max(1, x.size) ** 0.5  # how far from zero random entries may lie
    is_centered = jnp.abs(jnp.mean(flat)) <= mean_size(x) * max(0.5, chance)
    is_short = x.size < 8  # too short to tell
    return is_constant | is_short | (~is_ordered & is_centered)


def _trained(params: Params) -> dict[str, Any]:
    """Leaves that are trained, or numbers in place of leaves, by path."""
    leaves = zip(leaf_paths(params), jax.tree.leaves(params))
    return {path: x for path, x in leaves if isinstance(x, Real) or is_trained(x)}


def mean_size(x: jax.Array) -> jax.Array:
    """Root mean square of all entries."""
    return jnp.sqrt(jnp.sum(jnp.square(jnp.abs(x))) / max(1, x.size))
