"""muP without forward multipliers: init and learning rate alone make a wide model right."""

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

    `transfer_by_mup` leaves it to the model to divide what an output matrix makes by the growth
    of its fan-in. Here the matrix itself is drawn, and moves, so much less: whether it is the
    readout or stands inside, as the keys of multi-query attention or a bottleneck do, the model
    stays as it is. With $i$ and $o$ the growth of fan-in and fan-out, and a direction as in
    `transfer_by_mup`, of degree $q$ in the gradient and $D$ for reasons of shape,

    $$u \cdot \frac{M}{G^q D}, \qquad M = \begin{cases} 1 / i & \text{hidden or output} \\ 1 &
      \text{else} \end{cases}, \qquad G = 1 / o$$

    Args:
        parametrization: from `infer_parametrization`.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Yang and others, "Tensor Programs V", arXiv:2203.03466, Table 3.
    Departure: none for SGD and Adam; other optimizers as in `transfer_by_mup`.
    Limits: stands after `step_by_learning_rate`. Initial weights are those of
        `gradkit.rescale_init(..., rule="plain_mup")`. A tied table still needs its multiplier
        on the logits; attention scores are divided by the size of a head.

    >>> w, wide = {"w": jnp.ones((2, 3))}, {"w": jnp.ones((8, 3))}
    >>> tx = gk.transfer_by_plain_mup(gk.infer_parametrization(base=w, target=wide))
    >>> print(tx.update(wide, tx.init(wide))[0]["w"][0, 0])  # a readout
    0.25
    """
    return apply.by_rule(
        "transfer_by_plain_mup", parametrization, "plain_mup", optimizer
    )
