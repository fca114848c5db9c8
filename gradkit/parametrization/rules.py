"""Rules: functions that give the multipliers of one parameter in a parametrization."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from gradkit._core import check
from gradkit._core.call import error
from gradkit._core.types import Scalar
from gradkit.parametrization.parameter import Parameter, Parametrization
from gradkit.parametrization.scaling import (
    LAYOUTS,
    OPTIMIZERS,
    PLAIN,
    READOUT,
    Layout,
    Multipliers,
    Optimizer,
    derive,
    fans,
    grown,
)

# None where the rule does not know the parameter's role, or the optimizer
Rule = Callable[[Parameter, Optimizer], Multipliers | None]


def in_layout(
    layout: Layout, parameter: Parameter, optimizer: Optimizer, **exponents: Scalar
) -> Multipliers | None:
    """Multipliers in one layout; None for a tied embedding, unless the readout is muP's."""
    if parameter.role == "tied" and layout.readout != 1:
        return None
    return grown(layout, parameter, optimizer, **exponents)


def completep(
    parameter: Parameter, optimizer: Optimizer, branch: Scalar = 1.0
) -> Multipliers:
    """muP in width, `L^-branch` in depth, and a decay that depends on depth; none for vectors."""
    growth = grown(READOUT, parameter, optimizer, branch=branch)
    matrix = len(parameter.shape) - len(parameter.stacks) > 1
    decay = parameter.depth ** (branch - 1) if matrix else 0.0
    return growth._replace(weight_decay=decay / growth.learning_rate)


def spectral(parameter: Parameter, optimizer: Optimizer) -> Multipliers:
    """Multipliers for weights and updates of spectral norm about `sqrt(fan_out / fan_in)`."""
    (i, o), factor = fans(parameter, parameter.shape), parameter.factor
    init = (min(1, o / i) / i) ** 0.5 / factor
    return derive(optimizer, (i, o), factor, init)._replace(forward=1.0)


def umup(parameter: Parameter, optimizer: Optimizer) -> Multipliers | None:
    """u-muP: weights and gradients of size 1, so that SGD and Adam have the same rates."""
    is_known = optimizer in (OPTIMIZERS["sgd"], OPTIMIZERS["adam"])
    if not is_known or parameter.role == "tied":
        return None
    i, o = fans(parameter, parameter.shape)
    forward = i ** (-1 if parameter.kind == "output" else -1 / 2)
    by_role = o**-0.5 if parameter.role == "embedding" else 1.0  # found by experiment
    rate = by_role / (i * forward) * parameter.depth**-0.5
    return Multipliers(1.0, forward / parameter.factor, rate, 1 / rate, 1.0)


RULES: Mapping[str, Rule] = {
    "mup": functools.partial(in_layout, READOUT),
    "plain_mup": functools.partial(in_layout, PLAIN),
    "depth_mup": functools.partial(in_layout, READOUT, branch=1 / 2),
    "residual_scaling": functools.partial(
        in_layout, LAYOUTS["mean_field"], branch=1 / 2
    ),
    "completep": completep,
    "second_order_mup": functools.partial(in_layout, PLAIN),
    "umup": umup,
    "spectral": spectral,
    "standard": functools.partial(in_layout, LAYOUTS["standard"]),
    "ntk": functools.partial(in_layout, LAYOUTS["ntk"]),
    "abc_mup": functools.partial(in_layout, LAYOUTS["mup"]),
    "mean_field": functools.partial(in_layout, LAYOUTS["mean_field"]),
}


def chosen(method: str, what: str, choices: Mapping[str, Any], given: Any) -> Any:
    """Return `choices[given]` if `given` is a name; else `given` itself."""
    if not isinstance(given, str):
        return given
    names = f"{what} must be one of {', '.join(choices)}"
    remedy = f"Choose the one that is like yours, or pass your own {what}."
    check.holds(method, given in choices, names, repr(given), remedy)
    return choices[given]


def follow(
    method: str,
    parametrization: Mapping[str, Parameter],
    rule: str | Rule,
    optimizer: str | Optimizer,
) -> dict[str, Multipliers]:
    """Apply a rule to every parameter, and return multipliers by path. Errors name `method`."""
    check.parametrization(method, "parametrization", parametrization)
    apply_rule = chosen(method, "rule", RULES, rule)
    optimizer_row = chosen(method, "optimizer", OPTIMIZERS, optimizer)
    multipliers_by_path = {
        path: apply_rule(p, optimizer_row) for path, p in parametrization.items()
    }
    unknown = [path for path, row in multipliers_by_path.items() if row is None]
    for path in unknown:
        text = (
            f"leaf {path} must have a role and an optimizer that the rule knows, got role "
            f"{parametrization[path].role!r} and optimizer {optimizer!r}. Untie a tied "
            "embedding and move it by adam or sgd, or use transfer_by_mup."
        )
        raise error(ValueError, method, text)
    return multipliers_by_path


def multiplier_columns(
    rule: str | Rule = "mup", optimizer: str | Optimizer = "adam"
) -> dict[str, Callable[[Parameter], float]]:
    """Columns for `Parametrization.table`: by title, a function of a parameter to a multiplier.

    >>> p = gk.Parametrization({"w": gk.Parameter((8, 8), (2, 2), "hidden", (0,), (1,))})
    >>> p.table(gk.multiplier_columns("mup")).split()[-5:]  # init, forward, rate, decay and eps
    ['0.5', '1', '0.25', '4', '0.25']
    """
    follow("multiplier_columns", {}, rule, optimizer)  # checks the arguments now
    return {
        field.replace("_", " "): functools.partial(_column, rule, optimizer, field)
        for field in Multipliers._fields
    }


def _column(
    rule: str | Rule, optimizer: str | Optimizer, field: str, parameter: Parameter
) -> float:
    """One field of the multipliers of a parameter."""
    path = f"of shape {parameter.shape}"  # in place of a path, for an error
    by_path = follow("multiplier_columns", {path: parameter}, rule, optimizer)
    return float(getattr(by_path[path], field))


def multipliers(
    parametrization: Parametrization,
    rule: str | Rule = "mup",
    optimizer: str | Optimizer = "adam",
) -> dict[str, Multipliers]:
    """Multipliers of the hyperparameters of every parameter under a rule.

    Args:
        parametrization: from `infer_parametrization`.
        rule: a name, as in `transfer_by_...`; the name of a table of `transfer_by_alignment`
            (its muP is `abc_mup`); or a function of a `Parameter` and an `Optimizer`.
        optimizer: the name of a class of optimizers, or an `Optimizer`.

    Returns: `Multipliers` by parameter path. They are relative to the base size; those of
        `spectral` and `umup`, which have no base size, are absolute.

    >>> w, wide = {"w": jnp.ones((2, 2))}, {"w": jnp.ones((8, 8))}
    >>> m = gk.multipliers(gk.infer_parametrization(base=w, target=wide))["w"]
    >>> m.init, m.learning_rate, m.weight_decay, m.eps
    (0.5, 0.25, 4.0, 0.25)
    """
    return follow("multipliers", parametrization, rule, optimizer)
