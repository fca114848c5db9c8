"""muP for Kronecker-factored optimizers: learning rates from the exponents of their factors."""

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.types import Hyper, Transform
from gradkit.parametrization import apply
from gradkit.parametrization.parameter import Parametrization
from gradkit.parametrization.scaling import kronecker


@factory
def transfer_by_second_order_mup(
    parametrization: Parametrization,
    *,
    input_exponent: Hyper = 1.0,
    output_exponent: Hyper = 1.0,
) -> Transform:
    r"""Multiply each update of a Kronecker-factored method by muP's learning-rate factor.

    $$u \cdot i^{e_A - 1} o^{1 - e_B}$$

    for directions $B^{-e_B} G A^{-e_A}$ of a gradient $G$. $A$ is the second moment of the layer's
    inputs, $B$ that of the gradients of its outputs. $i$ and $o$ are the growth of fan-in and
    fan-out, target over base. K-FAC ($e_A = e_B = 1$): 1.
    Shampoo ($e_A = e_B = 1/2$): $\sqrt{o / i}$.

    Args:
        parametrization: from `infer_parametrization`.
        input_exponent: $e_A$.
        output_exponent: $e_B$.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Ishikawa and Karakida, "On the Parameterization of Second-Order Optimization
        Effective Towards the Infinite Width", arXiv:2312.12226.
    Departure: none; the paper has one width, and its exponents are split over `i` and `o` here.
    Limits: place it after `step_by_learning_rate`, so that no schedule undoes it. The model has no
        forward multiplier: the output matrix is drawn `i` times smaller, as by
        `gradkit.rescale_init(..., rule="second_order_mup")`. A damping of $A$ should grow as `i`,
        and one of $B$ as `1 / o`. Do not initialize the output matrix to zero: K-FAC then learns
        no features.

    >>> w, wide = {"w": jnp.ones((2, 3))}, {"w": jnp.ones((8, 3))}
    >>> grown = gk.infer_parametrization(base=w, target=wide)
    >>> tx = gk.transfer_by_second_order_mup(grown, input_exponent=0.5, output_exponent=0.5)  # Shampoo's output matrix
    >>> print(tx.update(wide, tx.init(wide))[0]["w"][0, 0])
    0.5
    """
    method = "transfer_by_second_order_mup"
    exponents = {"input_exponent": input_exponent, "output_exponent": output_exponent}
    check.nonnegative(method, **exponents)
    optimizer = kronecker(input_exponent, output_exponent)
    return apply.by_rule(method, parametrization, "second_order_mup", optimizer)
