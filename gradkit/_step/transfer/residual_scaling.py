"""Residual networks in the mean-field parametrization, at any width and depth."""

from gradkit._core.factory import factory
from gradkit._core.types import Transform
from gradkit.parametrization import apply
from gradkit.parametrization.parameter import Parametrization
from gradkit.parametrization.scaling import Optimizer


@factory
def transfer_by_residual_scaling(
    parametrization: Parametrization, *, optimizer: str | Optimizer = "sgd"
) -> Transform:
    r"""Multiply each update by the learning-rate factor of mean-field residual networks.

    Their weights are all drawn at size 1:

    $$h^{l+1} = h^l + \frac{1}{\sqrt{L N}} W^l \phi(h^l), \qquad
      f = \frac{1}{N} w^\top \phi(h^L)$$

    For growth of the width to $N$ and of the depth to $L$ times the base, blocks take

    $$\text{SGD:} \; u \cdot N, \qquad \text{Adam:} \; u \cdot \frac{1}{\sqrt{N L}},$$

    input and output weights $N$ or 1.

    Args:
        parametrization: from `infer_parametrization`; its `depth` is $L$.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Bordelon and others, "Depthwise Hyperparameter Transfer in Residual Networks:
        Dynamics and Scaling Limit", arXiv:2309.16620.
    Departure: the paper's $\gamma_0$ is the model's and the learning rate's: it divides
        the output, and its square multiplies SGD's rate. The factor $N$ of SGD's rate, which
        the limit needs, is here and not in that rate. Adam's follows from it.
    Limits: as `transfer_by_mup`. The multipliers above are the model's.

    >>> block = gk.Parameter((8, 8), (2, 2), "hidden", (0,), (1,), depth=4)
    >>> tx = gk.transfer_by_residual_scaling(gk.Parametrization({"w": block}), optimizer="adam")
    >>> print(tx.update({"w": jnp.ones((8, 8))}, tx.init({}))[0]["w"][0, 0])
    0.25
    """
    method = "transfer_by_residual_scaling"
    return apply.by_rule(method, parametrization, "residual_scaling", optimizer)
