"""CompleteP: a learning rate that is right for a transformer of any width and depth."""

import functools

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.types import Hyper, Transform
from gradkit.parametrization import apply, rules
from gradkit.parametrization.parameter import Parametrization
from gradkit.parametrization.scaling import Optimizer


@factory
def transfer_by_completep(
    parametrization: Parametrization,
    *,
    optimizer: str | Optimizer = "adam",
    branch: Hyper = 1.0,
) -> Transform:
    r"""Multiply each update by CompleteP's learning-rate factor, for any width and any depth.

    In a network whose residual branches are added as $x + L^{-\mathrm{branch}} f(x)$, with
    $L$ the growth of their number, all parameters of a branch take, on top of muP,

    $$u \cdot \frac{L^{\mathrm{branch} - 1}}{(L^{-\mathrm{branch}})^q}$$

    with $q$ the degree of the direction in the gradient. Adam with `branch` 1: nothing.

    Args:
        parametrization: from `infer_parametrization`; its `depth` is $L$.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.
        branch: the exponent; 1/2 is depth-muP's, 1 keeps what a branch learns nonlinear.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Dey and others, "Don't be lazy: CompleteP enables compute-efficient deep
        transformers", arXiv:2505.01618, Table 1.
    Departure: none for AdamW. Other optimizers follow from the same demands.
    Limits: as `transfer_by_mup`. Of the paper's table Adam's `eps` is scaled by
        `transfer_by_gradient_scale`, the weight decay by `decay_by_completep`. The release
        has one `eps`, the hidden weights', for all parameters.

    >>> block = gk.Parameter((2, 2), (2, 2), "hidden", (0,), (1,), depth=4)
    >>> tx = gk.transfer_by_completep(gk.Parametrization({"w": block}), optimizer="sgd")
    >>> print(tx.update({"w": jnp.ones((2, 2))}, tx.init({}))[0]["w"][0, 0])
    4.0
    """
    method = "transfer_by_completep"
    check.interval(method, "(0, 1]", branch=branch)
    rule = functools.partial(rules.completep, branch=branch)
    return apply.by_rule(method, parametrization, rule, optimizer)
