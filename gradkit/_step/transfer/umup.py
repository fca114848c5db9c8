"""u-muP: learning rates for a model whose weights and gradients all have size 1."""

from gradkit._core.factory import factory
from gradkit._core.types import Transform
from gradkit.parametrization import apply
from gradkit.parametrization.parameter import Parametrization
from gradkit.parametrization.scaling import Optimizer


@factory
def transfer_by_umup(
    parametrization: Parametrization, *, optimizer: str | Optimizer = "adam"
) -> Transform:
    r"""Multiply each update by u-muP's learning-rate factor, for a unit-scaled model.

    $$u \cdot \frac{1}{\sqrt L} \begin{cases} 1 / \sqrt{\text{fan-in}} & \text{matrix} \\
      1 / \sqrt{\text{fan-out}} & \text{embedding} \\
      1 & \text{output, bias, gain} \end{cases}$$

    Fan-in and fan-out are those of the target itself, not their growth. $L$ is the number of
    residual layers for parameters in one, else 1.

    Args:
        parametrization: from `infer_parametrization`. The base does not
            matter, but for its depth: infer against one residual layer, and `depth` is $L$.
        optimizer: `"adam"` or one like it, or `"sgd"`, which is then the same: unit-scaled
            gradients have size 1.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Blake and others, "u-muP: The Unit-Scaled Maximal Update Parametrization",
        arXiv:2407.17465, Table 2.
    Departure: biases, which are not in the paper, have no multiplier; the authors' code multiplies
        them with the product they are added to. Its SGD for a readout without unit scaling
        (`to_output_scale`) is not here.
    Limits: the model multiplies matrices by $1 / \sqrt{\text{fan-in}}$, the output by
        $1 / \text{fan-in}$, and scales its gradients and residuals: see the paper. Its weight
        decay does not depend on the rate: put it after this transform. Tied embeddings are
        refused. Embeddings need the role `embedding`, not `input`.

    >>> p = gk.Parameter((64, 256), (1, 1), "hidden", (0,), (1,), depth=4)
    >>> tx = gk.transfer_by_umup(gk.Parametrization({"w": p}))
    >>> print(tx.update({"w": jnp.ones((64, 256))}, tx.init({}))[0]["w"][0, 0])  # 1/8, 1/2
    0.0625
    """
    return apply.by_rule("transfer_by_umup", parametrization, "umup", optimizer)
