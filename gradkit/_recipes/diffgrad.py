"""diffGrad, with decoupled weight decay."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.diffgrad import scale_by_diffgrad


@factory
def diffgrad(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Rate = 1e-8,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """Adam times a friction coefficient, which is as low as 1/2 where gradients do not change.

    `scale_by_diffgrad` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        learning_rate, b1, b2, eps, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `12*size` bytes a leaf, `12` once.
    Flops: at most `48*size` a leaf.
    Paper: Dubey et al., "diffGrad: An Optimization Method for Convolutional Neural Networks",
        arXiv:1909.11015, the update with its friction coefficient.
    Departure: decoupled weight decay, which the paper does not have; the authors' code adds it to
        the gradient.
    Limits: how much it slows depends on the scale of the loss.
    """
    return chain(
        scale_by_diffgrad(b1, b2=b2, eps=eps),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
