"""AdamW, as in torch and optax."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam


@factory
def adamw(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 1e-2,
    mask: Mask = None,
) -> Transform:
    """Adam with decoupled weight decay.

    `scale_by_adam` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        learning_rate, b1, b2, eps, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `8*size` bytes a leaf, `12` once.
    Flops: at most `34*size` a leaf.
    Paper: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv:1711.05101,
        Algorithm 2.
    Departure: the decay is multiplied by the learning rate, as in torch and optax.
    Limits: decays every leaf, gains and biases too, unless `mask` spares them.
    """
    return chain(
        scale_by_adam(b1, b2=b2, eps=eps),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
