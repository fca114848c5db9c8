"""CompleteP: muP with learning rates that also transfer across depth."""

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

    $$u \cdot \frac{L^{\mathrm{branch} - 1}}{(L^{-\mathrm{branch}})^q} \cdot \text{muP's factor}$$

    for parameters of a residual branch, which the model adds as $x + L^{-\mathrm{branch}} f(x)$.
    $L$ is the growth of the number of branches, target over base. The numerator is how far a
    parameter should move, the denominator the size of its gradient. $q$ is the degree of the
    direction in the gradient: 0 for Adam, 1 for SGD. For Adam with `branch` 1 the factor of $L$
    is 1. All other parameters take muP's factor alone.

    Args:
        parametrization: from `infer_parametrization`; its `depth` is $L$.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.
        branch: the exponent; 1/2 is depth-muP's. With 1, features of a branch stay nonlinear in
            its weights as depth grows.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Dey and others, "Don't be lazy: CompleteP enables compute-efficient deep
        transformers", arXiv:2505.01618, Table 1.
    Departure: none for AdamW. The factors of other optimizers are derived the same way.
    Limits: place it after `step_by_learning_rate`, so that no schedule undoes it. The model
        multiplies its branches, and divides the input of its output matrix by the growth of its
        fan-in. Scale Adam's `eps` with `transfer_by_gradient_scale(..., rule="completep")`, and the
        weight decay with `decay_by_completep`. The authors' code uses the `eps` of hidden weights for all.

    >>> block = gk.Parameter((2, 2), (2, 2), "hidden", (0,), (1,), depth=4)
    >>> tx = gk.transfer_by_completep(gk.Parametrization({"w": block}), optimizer="sgd")
    >>> print(tx.update({"w": jnp.ones((2, 2))}, tx.init({}))[0]["w"][0, 0])
    4.0
    """
    method = "transfer_by_completep"
    check.interval(method, "(0, 1]", branch=branch)
    rule = functools.partial(rules.completep, branch=branch)
    return apply.by_rule(method, parametrization, rule, optimizer)
