"""The spectral condition: updates and weights with spectral norm about `sqrt(fan_out / fan_in)`."""

from gradkit._core.factory import factory
from gradkit._core.types import Transform
from gradkit.parametrization import apply
from gradkit.parametrization.parameter import Parametrization
from gradkit.parametrization.scaling import Optimizer


@factory
def transfer_by_spectral(
    parametrization: Parametrization, *, optimizer: str | Optimizer = "adam"
) -> Transform:
    r"""Multiply each update to a spectral norm of about $\sqrt{n_o / n_i}$, as the condition asks.

    $$u \cdot \begin{cases} n_o / n_i & \text{SGD} \\ 1 / n_i & \text{Adam, signs} \\
      \sqrt{n_o / n_i} & \text{spectral methods} \end{cases}$$

    $n_i$ and $n_o$ are fan-in and fan-out of the layer at the target size itself, not their growth.
    Biases and gains are layers with one input.

    Args:
        parametrization: from `infer_parametrization`; only the target's
            shapes, and the axes that are summed over, matter.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Yang, Simon and Bernstein, "A Spectral Condition for Feature Learning",
        arXiv:2310.17813, Condition 1 and its equations for SGD and Adam.
    Departure: none. An embedding has $n_i = 1$, as one row is looked up at a time.
    Limits: place it after `step_by_learning_rate`, so that no schedule undoes it. It is muP without
        forward multipliers, and one learning rate fits layers of different shape. Initial weights
        have size $\sqrt{\min(1, n_o / n_i) / n_i}$: `gradkit.rescale_init(..., rule="spectral")`.

    >>> w, wide = {"w": jnp.ones((2, 4))}, {"w": jnp.ones((2, 8))}
    >>> grown = gk.infer_parametrization(base=w, target=wide)
    >>> tx = gk.transfer_by_spectral(grown, optimizer="spectral")
    >>> print(tx.update(wide, tx.init(wide))[0]["w"][0, 0])
    2.0
    """
    method = "transfer_by_spectral"
    return apply.by_rule(method, parametrization, "spectral", optimizer)
