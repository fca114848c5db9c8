"""The spectral condition: updates that change any layer's outputs by as much as its weights."""

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

    For a layer from $n_i$ to $n_o$ entries, in that shape itself and not in its growth:

    $$u \cdot \begin{cases} n_o / n_i & \text{SGD} \\ 1 / n_i & \text{Adam, signs} \\
      \sqrt{n_o / n_i} & \text{spectral methods} \end{cases}$$

    Biases and gains are layers with one input.

    Args:
        parametrization: from `infer_parametrization`; only the target's
            shapes matter, and which axes are summed over.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Yang, Simon and Bernstein, "A Spectral Condition for Feature Learning",
        arXiv:2310.17813, Condition 1 and its equations for SGD and Adam.
    Departure: none. A table's row that is looked up counts as its one input.
    Limits: as `transfer_by_mup`, of which it is the form without multipliers in the
        model, and with one learning rate for layers of different shape. Initial weights of
        size $\sqrt{\min(1, n_o / n_i) / n_i}$ belong to it: `gradkit.rescale_init`.

    >>> w, wide = {"w": jnp.ones((2, 4))}, {"w": jnp.ones((2, 8))}
    >>> grown = gk.infer_parametrization(base=w, target=wide)
    >>> tx = gk.transfer_by_spectral(grown, optimizer="spectral")
    >>> print(tx.update(wide, tx.init(wide))[0]["w"][0, 0])
    2.0
    """
    method = "transfer_by_spectral"
    return apply.by_rule(method, parametrization, "spectral", optimizer)
