"""muP for learned optimizers."""

from gradkit._core.factory import factory
from gradkit._core.types import Transform
from gradkit.parametrization import apply, rules
from gradkit.parametrization.parameter import Parametrization


@factory
def transfer_by_learned_mup(parametrization: Parametrization) -> Transform:
    r"""Multiply the steps of a learned optimizer by their factor in muP.

    $$u \cdot \begin{cases} 1 / \text{fan-in} & \text{hidden} \\ 1 & \text{else} \end{cases}$$

    Fan-in is that of the target itself, not its growth, because one learned optimizer is trained
    on many widths.

    Args:
        parametrization: from `infer_parametrization`; the base only tells
            which axes grow.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Therien and others, "muLO: Compute-Efficient Meta-Generalization of Learned
        Optimizers", arXiv:2406.00153.
    Departure: none.
    Limits: for steps whose entries have the same size at any width, as with features normalized
        over each tensor, and not for steps relative to the parameter's size. The model divides the
        input of the output matrix by the width.

    >>> w, wide = {"w": jnp.ones((2, 2))}, {"w": jnp.ones((8, 8))}
    >>> tx = gk.transfer_by_learned_mup(gk.infer_parametrization(base=w, target=wide))
    >>> print(tx.update(wide, tx.init(wide))[0]["w"][0, 0])
    0.125
    """
    method = "transfer_by_learned_mup"
    multipliers = rules.follow(method, parametrization, "mup", "adam")

    def factor(path: str) -> float:
        parameter = parametrization[path]
        base = parameter.base_fan_in if parameter.kind == "hidden" else 1
        return float(multipliers[path].learning_rate / base)

    return apply.multiply(
        method, parametrization, {path: factor(path) for path in multipliers}
    )
