"""AdaBound, as in its authors' code, with decoupled weight decay."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adabound import scale_by_adabound


@factory
def adabound(
    learning_rate: Rate = 1e-3,
    *,
    final_ratio: Hyper = 100.0,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    gamma: Hyper = 1e-3,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """Adam whose step sizes are clipped to bounds that narrow until they are SGD's.

    `scale_by_adabound` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        learning_rate: Adam's, at the start; a number or a schedule.
        final_ratio: SGD's learning rate at the end, as a multiple of `learning_rate`.
        gamma: how fast the bounds narrow, an inverse number of updates.
        eps: added to the RMS before bias correction, in units of the gradient.
        b1, b2, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `8*size` bytes a leaf, `12` once.
    Flops: at most `34*size` a leaf.
    Paper: Luo, Xiong, Liu and Sun, "Adaptive Gradient Methods with Dynamic Bound of Learning
        Rate", arXiv:1902.09843, Algorithm 2.
    Departure: the authors' code takes `final_lr = final_ratio * learning_rate` and adds weight
        decay to the gradient. As in that code, step sizes are bias-corrected before they are
        bounded: see `scale_by_adabound`.
    Limits: the last learning rate must suit the problem as SGD's must.
    """
    return chain(
        scale_by_adabound(b1, b2=b2, eps=eps, final_ratio=final_ratio, gamma=gamma),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
