"""Gradients scaled back to their base-size magnitude, so that Adam's eps keeps its meaning."""

from gradkit._core.factory import factory
from gradkit._core.types import Transform
from gradkit.parametrization import apply, rules
from gradkit.parametrization.parameter import Parametrization
from gradkit.parametrization.scaling import OPTIMIZERS


@factory
def transfer_by_gradient_scale(
    parametrization: Parametrization, *, rule: str | rules.Rule = "mup"
) -> Transform:
    r"""Divide each gradient by how much it grew with the width, so that Adam's eps stays right.

    $$u = g / G, \qquad \frac{g / G}{\sqrt{(g / G)^2} + \mathrm{eps}} =
      \frac{g}{\sqrt{g^2} + G \, \mathrm{eps}}$$

    $G$ is the growth of the gradient's entries, target over base, one number a leaf. If the next
    transform is scale-invariant except for its `eps`, dividing by $G$ is the same as multiplying
    its `eps` by $G$.

    Args:
        parametrization: from `infer_parametrization`.
        rule: what $G$ is: the `eps` of `gradkit.multipliers(parametrization, rule)`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Everett and others, "Scaling Exponents Across Parameterizations and Optimizers",
        arXiv:2407.05872; with `rule="completep"`, the `eps` of Dey and others,
        arXiv:2505.01618, Table 1.
    Departure: scales gradients where the papers scale `eps`; both give the same update.
    Limits: place it first in a chain, and keep the `transfer_by_...` at its end, for `"adam"`.
        Not for SGD, whose step would be divided too.

    >>> p = gk.Parametrization({"w": gk.Parameter((8, 8), (2, 2), "hidden", (0,), (1,))})
    >>> tx = gk.transfer_by_gradient_scale(p)
    >>> print(tx.update({"w": jnp.ones((8, 8))}, tx.init({}))[0]["w"][0, 0])
    4.0
    """
    method = "transfer_by_gradient_scale"
    multipliers = rules.follow(method, parametrization, rule, OPTIMIZERS["adam"])
    return apply.multiply(
        method, parametrization, {path: 1 / m.eps for path, m in multipliers.items()}
    )
