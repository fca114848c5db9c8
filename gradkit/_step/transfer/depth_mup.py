"""Depth-muP: learning rates that transfer across width and number of one-layer residual blocks."""

from gradkit._core.factory import factory
from gradkit._core.types import Transform
from gradkit.parametrization import apply
from gradkit.parametrization.parameter import Parametrization
from gradkit.parametrization.scaling import Optimizer


@factory
def transfer_by_depth_mup(
    parametrization: Parametrization, *, optimizer: str | Optimizer = "adam"
) -> Transform:
    r"""Multiply each update by depth-muP's learning-rate factor, for residual blocks of one layer.

    $$u \cdot \frac{L^{-1/2}}{(L^{-1/2})^q} \cdot \text{muP's factor}$$

    for parameters of a residual block, which the model adds as $x + L^{-1/2} f(x)$. $L$ is the
    growth of the number of blocks, target over base. The numerator is how far a parameter should
    move, the denominator the size of its gradient. $q$ is the degree of the direction in the
    gradient. So the factor of $L$ is $1 / \sqrt L$ for Adam ($q = 0$) and 1 for SGD ($q = 1$).

    Args:
        parametrization: from `infer_parametrization`; its `depth` is $L$.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Yang and others, "Tensor Programs VI: Feature Learning in Infinite-Depth Neural
        Networks", arXiv:2310.02244.
    Departure: none for SGD and Adam. The paper's muP has other forward multipliers, with equal
        training; here the model divides the input of the output matrix by the growth of its
        fan-in.
    Limits: place it after `step_by_learning_rate`, so that no schedule undoes it. The model
        multiplies its branches. With blocks of two layers or more, as in transformers, rates do
        not transfer across depth: use `transfer_by_completep`.

    >>> block = gk.Parameter((2, 2), (2, 2), "hidden", (0,), (1,), depth=4)
    >>> tx = gk.transfer_by_depth_mup(gk.Parametrization({"w": block}))
    >>> print(tx.update({"w": jnp.ones((2, 2))}, tx.init({}))[0]["w"][0, 0])
    0.5
    """
    method = "transfer_by_depth_mup"
    return apply.by_rule(method, parametrization, "depth_mup", optimizer)
