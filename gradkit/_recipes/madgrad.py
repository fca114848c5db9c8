"""MADGRAD, as in its authors' code, with decoupled weight decay."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.madgrad import scale_by_madgrad


@factory
def madgrad(
    learning_rate: Rate = 1e-2,
    *,
    momentum: Hyper = 0.9,
    eps: Hyper = 1e-6,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """Dual averaging of gradients over the cube root of their summed squares, with momentum.

    `scale_by_madgrad` -> `step_by_learning_rate` of 1 -> `decay_by_weight`

    Args:
        learning_rate: weight of a gradient; a number or a schedule.
        momentum: the fraction of the way to the dual average that is left.
        eps: added to the cube root and to the learning rate.
        weight_decay, mask: see the glossary.

    Needs: params.
    State: `12*size` bytes a leaf, `12` once.
    Flops: at most `38*size` a leaf.
    Paper: Defazio and Jelassi, "Adaptivity without Compromise: A Momentumized, Adaptive, Dual
        Averaged Gradient Method for Stochastic Optimization", arXiv:2101.11075, Algorithm 1.
    Departure: `eps` is added to the learning rate, as in the authors' code. Weight decay is
        decoupled; that code adds it to the gradient.
    Limits: weight decay pulls against the anchor, towards which parameters return; less of it
        is needed than under SGD.
    """
    return chain(
        scale_by_madgrad(learning_rate, momentum=momentum, eps=eps),
        step_by_learning_rate(1.0),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
