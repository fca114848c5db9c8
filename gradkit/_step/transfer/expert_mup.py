"""muP for mixtures of experts."""

import math

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.types import Transform
from gradkit.parametrization import apply
from gradkit.parametrization.parameter import Parameter, Parametrization
from gradkit.parametrization.scaling import Optimizer


@factory
def transfer_by_expert_mup(
    parametrization: Parametrization, *, optimizer: str | Optimizer = "adam"
) -> Transform:
    r"""Multiply each update by muP's learning-rate factor for experts and their router.

    Every expert is a hidden matrix of its own, and the router is an output matrix. The number of
    experts, and the number chosen per token, do not grow.

    $$\text{expert:} \; u / i \; (\text{Adam}), \; u \cdot o / i \; (\text{SGD}); \qquad
      \text{router:} \; u \; (\text{Adam}), \; u \cdot i \; (\text{SGD})$$

    $i$ and $o$ are the growth of fan-in and fan-out, target over base. All other parameters take
    the factor of `transfer_by_mup`.

    Args:
        parametrization: from `infer_parametrization`, with roles `expert` and
            `router`: an axis that numbers experts is neither input nor output.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Malasnicki and others, "mu-Parametrization for Mixture of Experts",
        arXiv:2508.09752.
    Departure: none in what counts as hidden and as output. The model divides by `i` at the router
        and output matrix, in place of a smaller learning rate. The factors were compared with
        the code of Vankadara and others, arXiv:2605.14200, not with the paper's table.
    Limits: place it after `step_by_learning_rate`, so that no schedule undoes it. The model
        divides the inputs of the router and of the output matrix by `i`. A growing number of
        experts is refused: their sum has no limit under this rule, though rates transfer in the
        paper's experiments. Jiang and others, arXiv:2601.20205, and Vankadara and others treat
        that case.

    >>> shapes = {"shape": (4, 8, 8), "base": (4, 2, 2), "stacks": (0,)}
    >>> up = gk.Parameter(role="expert", inputs=(1,), outputs=(2,), **shapes)
    >>> tx = gk.transfer_by_expert_mup(gk.Parametrization({"up": up}))
    >>> print(tx.update({"up": jnp.ones((4, 8, 8))}, tx.init({}))[0]["up"][0, 0, 0])
    0.25
    """
    method = "transfer_by_expert_mup"
    roles = {p.role for p in parametrization.values()}
    check.holds(
        method,
        bool(roles & {"expert", "router"}),
        "parametrization must have experts or a router",
        sorted(roles),
        "Name their roles when you infer it, or use transfer_by_mup.",
    )
    for path, p in parametrization.items():
        check.holds(
            method,
            _experts_stay(p),
            f"leaf {path} must have as many experts as its base",
            f"shapes {p.base} and {p.shape}",
            "Keep their number: muP has a rule for the width of experts alone.",
        )
    return apply.by_rule(method, parametrization, "mup", optimizer)


def _experts_stay(p: Parameter) -> bool:
    """Whether stacked axes grew by layers alone, and a router has no more outputs."""
    if p.role == "router":
        return p.growth_out == 1
    grown = math.prod(p.shape[axis] / p.base[axis] for axis in p.stacks)
    return p.role != "expert" or grown == 1 or math.isclose(grown, p.depth)
