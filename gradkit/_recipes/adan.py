"""Adan, as in its authors' code, with decoupled weight decay."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adan import scale_by_adan


@factory
def adan(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.98,
    b2: Hyper = 0.92,
    b3: Hyper = 0.99,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """Adam with Nesterov momentum, written in differences of successive gradients.

    `scale_by_adan` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        b2: decay of the EMA of the difference of successive gradients, and its weight.
        b3: decay of the EMA of the squared look-ahead gradient.
        eps: added to the root of that EMA, in units of the gradient.
        learning_rate, b1, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `16*size` bytes a leaf, `12` once.
    Flops: at most `46*size` a leaf.
    Paper: Xie, Zhou, Li, Lin and Yan, "Adan: Adaptive Nesterov Momentum Algorithm for Faster
        Optimizing Deep Models", arXiv:2208.06677, Algorithm 1.
    Departure: bias-corrected, with decays that are one minus the paper's, as in the authors'
        code. Weight decay is that of their code with `no_prox`; the paper divides by
        `1 + learning_rate * weight_decay`.
    Limits: four times the parameters' memory.
    """
    return chain(
        scale_by_adan(b1, b2=b2, b3=b3, eps=eps),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
