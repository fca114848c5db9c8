"""muP without forward multipliers: only initialization and learning rates change with width."""

from gradkit._core.factory import factory
from gradkit._core.types import Transform
from gradkit.parametrization import apply
from gradkit.parametrization.parameter import Parametrization
from gradkit.parametrization.scaling import Optimizer


@factory
def transfer_by_plain_mup(
    parametrization: Parametrization, *, optimizer: str | Optimizer = "adam"
) -> Transform:
    r"""Multiply each update by muP's learning-rate factor, for a model without forward multipliers.

    Under `transfer_by_mup` the model divides the result of an output matrix by the growth of its
    fan-in. Here the matrix itself is drawn smaller and moves less, and the model stays as it is.
    An output matrix is the readout, or any inner matrix from a width to a fixed size, such as the
    keys of multi-query attention or a bottleneck.

    $$u \cdot \frac{M}{G^q D}, \qquad M = \begin{cases} 1 / i & \text{hidden or output} \\ 1 &
      \text{else} \end{cases}, \qquad G = 1 / o$$

    All symbols are ratios, target over base. $i$ and $o$ are the growth of fan-in and fan-out. $M$
    is how far entries should move, $G$ the size of gradient entries. $q$ is the degree of the
    direction in the gradient: 1 for SGD, 0 for Adam. $D$ is the growth of the direction that is due
    to its shape alone: 1 for SGD and Adam, $1 / \sqrt{i o}$ for spectral methods.

    Args:
        parametrization: from `infer_parametrization`.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Yang and others, "Tensor Programs V", arXiv:2203.03466, Table 3.
    Departure: none for SGD and Adam. Matrix optimizers are not in the paper: their factors follow
        from the same $M$ and $G$, for a gradient of rank one.
    Limits: place it after `step_by_learning_rate`, so that no schedule undoes it. Initial weights
        come from `gradkit.rescale_init(..., rule="plain_mup")`. A tied table still needs its
        multiplier on the logits. The model divides attention scores by the head size.

    >>> w, wide = {"w": jnp.ones((2, 3))}, {"w": jnp.ones((8, 3))}
    >>> tx = gk.transfer_by_plain_mup(gk.infer_parametrization(base=w, target=wide))
    >>> print(tx.update(wide, tx.init(wide))[0]["w"][0, 0])  # a readout
    0.25
    """
    return apply.by_rule(
        "transfer_by_plain_mup", parametrization, "plain_mup", optimizer
    )
