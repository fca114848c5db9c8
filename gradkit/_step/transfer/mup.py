"""muP: learning rates that transfer from a narrow model to a wide one."""

from gradkit._core.factory import factory
from gradkit._core.types import Transform
from gradkit.parametrization import apply
from gradkit.parametrization.parameter import Parametrization
from gradkit.parametrization.scaling import Optimizer


@factory
def transfer_by_mup(
    parametrization: Parametrization, *, optimizer: str | Optimizer = "adam"
) -> Transform:
    r"""Multiply each update by muP's learning-rate factor, so that one rate is right at any width.

    $$u \cdot \frac{M}{G^q D}, \qquad M = \begin{cases} 1 / i & \text{hidden} \\ 1 &
      \text{else} \end{cases}, \qquad G = \begin{cases} 1 / i & \text{output} \\ 1 / o &
      \text{else} \end{cases}$$

    All symbols are ratios, target over base. $i$ and $o$ are the growth of fan-in and fan-out of
    the parameter. $M$ is how far its entries should move. $G$ is the size of its gradient entries.
    $q$ is the degree of the direction in the gradient, and $D$ the growth of the direction that
    is due to its shape alone. SGD: $q = 1$, $D = 1$. Adam and signs: $q = 0$, $D = 1$. Spectral
    methods: $q = 0$, $D = 1 / \sqrt{i o}$. Without growth every factor is 1.

    Args:
        parametrization: from `infer_parametrization`.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Yang and Hu, "Feature Learning in Infinite-Width Neural Networks", arXiv:2011.14522;
        as multipliers, Yang and others, "Tensor Programs V", arXiv:2203.03466, Table 8.
    Departure: none for SGD and Adam. Matrix optimizers are not in Table 8: their factors follow
        from the same $M$ and $G$, for a gradient of rank one.
    Limits: place it after `step_by_learning_rate`, so that no schedule undoes it. A weight decay
        after it is the same at any width, as in the authors' code; one before it is multiplied too.
        The model divides the input of its output matrix by `i`, tied or not, and attention scores
        by the head size. Initial weights come from `gradkit.rescale_init`.

    >>> w, wide = {"w": jnp.ones((2, 2))}, {"w": jnp.ones((8, 8))}
    >>> tx = gk.transfer_by_mup(gk.infer_parametrization(base=w, target=wide))
    >>> print(tx.update(wide, tx.init(wide))[0]["w"][0, 0])  # Adam: a quarter as far
    0.25
    """
    return apply.by_rule("transfer_by_mup", parametrization, "mup", optimizer)
