"""AMSGrad, as in torch, with decoupled weight decay."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.amsgrad import scale_by_amsgrad


@factory
def amsgrad(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Rate = 1e-8,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """Adam with the largest second moment so far in the denominator.

    `scale_by_amsgrad` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        eps: added to the root of the largest second moment, in units of the gradient.
        learning_rate, b1, b2, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `12*size` bytes a leaf, `12` once.
    Flops: at most `36*size` a leaf.
    Paper: Reddi, Kale and Kumar, "On the Convergence of Adam and Beyond", arXiv:1904.09237,
        Algorithm 2.
    Departure: bias correction (`scale_by_amsgrad`) and weight decay, which the paper does not have.
    Limits: one large gradient slows its entry for good.
    """
    return chain(
        scale_by_amsgrad(b1, b2=b2, eps=eps),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
