"""AdEMAMix, as in its authors' code."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.second_moment import scale_by_second_moment
from gradkit._transform.momentum.ademamix import average_by_ademamix


@factory
def ademamix(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    b3: Rate = 0.9999,
    alpha: Rate = 5.0,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 1e-2,
    mask: Mask = None,
) -> Transform:
    """Adam with a fast and a slow EMA of the gradient mixed in the numerator.

    `scale_by_second_moment(average_by_ademamix)` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        b1: decay of the fast EMA.
        b3: decay of the slow EMA; a number, or `schedule_by_half_life(b1, b3, steps)`.
        alpha: weight of the slow EMA; a number, or a schedule that warms it up.
        learning_rate, b2, eps, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `12*size` bytes a leaf, `16` once.
    Flops: at most `44*size` a leaf.
    Paper: Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older",
        arXiv:2409.03137, Algorithm 1.
    Departure: `b3` and `alpha` are constant unless schedules are given; the paper warms both up.
    Limits: without the warm-ups, early training can diverge; three states a parameter.
    """
    return chain(
        scale_by_second_moment(
            average_by_ademamix(b1, b3=b3, alpha=alpha), b2=b2, eps=eps
        ),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
