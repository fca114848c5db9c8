"""Momentum with steps of random length."""

from gradkit._core import check, random, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.momentum.random_scaling import average_by_random_scaling


@factory
def random_scaled_sgdm(
    learning_rate: Rate = 1e-2,
    *,
    momentum: Hyper = 0.99,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    key: random.Key = 0,
) -> Transform:
    """Momentum SGD whose steps are scaled by exponential random numbers of mean 1.

    `average_by_random_scaling` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        momentum: decay of the EMA of the gradient.
        learning_rate, weight_decay, mask, key: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `4*size` bytes a leaf, `16` once.
    Flops: at most `14*size` a leaf, `16` once.
    Paper: Zhang and Cutkosky, "Random Scaling and Momentum for Non-smooth Non-convex
        Optimization", arXiv:2405.09742, its SGDM with random scaling.
    Departure: weight decay is ours, and has no random length. `momentum` averages: beside
        `sgd`, which sums, take a learning rate `1 / (1 - momentum)` times as large.
    Limits: one step in twenty is over three times as long as planned.
    """
    check.interval("random_scaled_sgdm", "[0, 1)", momentum=momentum)
    return chain(
        average_by_random_scaling(momentum, key=key),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
