"""muP for learned optimizers."""

from gradkit._core.factory import factory
from gradkit._core.types import Transform
from gradkit.parametrization import apply, rules
from gradkit.parametrization.parameter import Parametrization


@factory
def transfer_by_learned_mup(parametrization: Parametrization) -> Transform:
    r"""Multiply the steps of a learned optimizer by their factor in muP.

    $$u \cdot \begin{cases} 1 / \text{fan-in} & \text{hidden} \\ 1 & \text{else} \end{cases}$$

    in the shape itself and not in its growth, as one optimizer is trained on many widths.

    Args:
        parametrization: from `infer_parametrization`; of the base only which
            axes grow matters.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Therien and others, "muLO: Compute-Efficient Meta-Generalization of Learned
        Optimizers", arXiv:2406.00153.
    Departure: none.
    Limits: for steps whose entries have the same size at any width, as features normalized
        over each tensor give them. A step relative to the parameter's size is not one. The
        model divides what the output matrix is given by the width.

    >>> w, wide = {"w": jnp.ones((2, 2))}, {"w": jnp.ones((8, 8))}
    >>> tx = gk.transfer_by_learned_mup(gk.infer_parametrization(base=w, target=wide))
    >>> print(tx.update(wide, tx.init(wide))[0]["w"][0, 0])
    0.125
    """
    method = "transfer_by_learned_mup"
    found = rules.follow(method, parametrization, "mup", "adam")

    def factor(path: str) -> float:
        parameter = parametrization[path]
        base = parameter.base_fan_in if parameter.kind == "hidden" else 1
        return float(found[path].learning_rate / base)

    return apply.multiply(
        method, parametrization, {path: factor(path) for path in found}
    )
