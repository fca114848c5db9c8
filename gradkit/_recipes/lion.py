"""Lion, as in its authors' code."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.momentum.lion import average_by_lion


@factory
def lion(
    learning_rate: Rate = 1e-4,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """The sign of an interpolation of gradient and momentum, with decoupled weight decay.

    `average_by_lion` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        learning_rate: see the glossary. 3 to 10 times smaller than Adam's.
        b1: weight of the momentum in the interpolation.
        b2: decay of the momentum, an EMA of the gradient.
        weight_decay: see the glossary. 3 to 10 times larger than Adam's.
        mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `4*size` bytes a leaf, `8` once.
    Flops: at most `26*size` a leaf.
    Paper: Chen et al., "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675,
        Algorithm 2.
    Departure: none.
    Limits: parameters are drawn into a box of half-width `1 / weight_decay`.
    """
    return chain(
        average_by_lion(b1, b2=b2),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
