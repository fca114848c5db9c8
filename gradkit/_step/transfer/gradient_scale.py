"""Gradients in the units they had at the base size, so that Adam's eps keeps its meaning."""

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

    So whatever follows, if it does not depend on the size of a gradient but for an `eps`, has
    an `eps` of $G$ times the one given, leaf by leaf.

    Args:
        parametrization: from `infer_parametrization`.
        rule: what $G$ is: the `eps` of `gradkit.multipliers(parametrization, rule)`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Everett and others, "Scaling Exponents Across Parameterizations and Optimizers",
        arXiv:2407.05872; with `rule="completep"`, the `eps` of Dey and others,
        arXiv:2505.01618, Table 1.
    Departure: scales gradients where the papers scale `eps`, which is the same.
    Limits: stands first in a chain. The `transfer_by_...` at its end stays as it is, as for
        Adam; not for SGD, whose step would be divided too.

    >>> p = gk.Parametrization({"w": gk.Parameter((8, 8), (2, 2), "hidden", (0,), (1,))})
    >>> tx = gk.transfer_by_gradient_scale(p)
    >>> print(tx.update({"w": jnp.ones((8, 8))}, tx.init({}))[0]["w"][0, 0])
    4.0
    """
    method = "transfer_by_gradient_scale"
    found = rules.follow(method, parametrization, rule, OPTIMIZERS["adam"])
    return apply.multiply(
        method, parametrization, {path: 1 / m.eps for path, m in found.items()}
    )
