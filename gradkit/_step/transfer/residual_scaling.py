"""Learning rates of residual networks in the mean-field parametrization, across width and depth."""

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

    $$h^{l+1} = h^l + \frac{1}{\sqrt{L N}} W^l \phi(h^l), \qquad
      f = \frac{1}{N} w^\top \phi(h^L)$$

    is the network. $h^l$ is the input of block $l$, $W^l$ its weight, $w$ the output weight, $\phi$
    the nonlinearity, and all weights are drawn with variance 1. $N$ and $L$ are the growth of width
    and depth, target over base. The weights of blocks take

    $$\text{SGD:} \; u \cdot N, \qquad \text{Adam:} \; u \cdot \frac{1}{\sqrt{N L}}$$

    and input and output weights $u \cdot N$ with SGD, $u$ with Adam.

    Args:
        parametrization: from `infer_parametrization`; its `depth` is $L$.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Bordelon and others, "Depthwise Hyperparameter Transfer in Residual Networks:
        Dynamics and Scaling Limit", arXiv:2309.16620.
    Departure: the paper's $\gamma_0$ is not here: divide the output by it in the model, and
        multiply SGD's rate by its square. The paper's factor $N$ of SGD's rate is part of this
        transform. Adam's factor is derived from SGD's.
    Limits: place it after `step_by_learning_rate`, so that no schedule undoes it. The model
        multiplies by $1 / \sqrt{L N}$ and $1 / N$.

    >>> block = gk.Parameter((8, 8), (2, 2), "hidden", (0,), (1,), depth=4)
    >>> tx = gk.transfer_by_residual_scaling(gk.Parametrization({"w": block}), optimizer="adam")
    >>> print(tx.update({"w": jnp.ones((8, 8))}, tx.init({}))[0]["w"][0, 0])
    0.25
    """
    method = "transfer_by_residual_scaling"
    return apply.by_rule(method, parametrization, "residual_scaling", optimizer)
