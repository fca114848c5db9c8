"""Depth-muP: a learning rate that is right for any width, and any number of one-layer blocks."""

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

    In a network whose $L$ residual blocks, $L$ grown from the base, are added as
    $x + L^{-1/2} f(x)$, the parameters of a block take, on top of muP,

    $$u \cdot \frac{L^{-1/2}}{(L^{-1/2})^q}$$

    with $q$ the degree of the direction in the gradient: $1 / \sqrt L$ for Adam, 1 for SGD.

    Args:
        parametrization: from `infer_parametrization`; its `depth` is $L$.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Yang and others, "Tensor Programs VI: Feature Learning in Infinite-Depth Neural
        Networks", arXiv:2310.02244.
    Departure: none for SGD and Adam. The paper puts muP's multipliers elsewhere, which
        moves nothing: here the one multiplier is on the output, as in `transfer_by_mup`.
    Limits: as `transfer_by_mup`. The model multiplies its branches. With blocks of two
        layers and more, as in transformers, no depth is the limit of this: see
        `transfer_by_completep`.

    >>> block = gk.Parameter((2, 2), (2, 2), "hidden", (0,), (1,), depth=4)
    >>> tx = gk.transfer_by_depth_mup(gk.Parametrization({"w": block}))
    >>> print(tx.update({"w": jnp.ones((2, 2))}, tx.init({}))[0]["w"][0, 0])
    0.5
    """
    method = "transfer_by_depth_mup"
    return apply.by_rule(method, parametrization, "depth_mup", optimizer)
