"""Grams over Adam, with decoupled weight decay."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.momentum.grams import direct_by_grams


@factory
def grams(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """Adam's magnitudes with the current gradient's signs.

    `direct_by_grams(scale_by_adam)` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        learning_rate, b1, b2, eps, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `8*size` bytes a leaf, `12` once.
    Flops: at most `42*size` a leaf.
    Paper: Cao, Li and Song, "Grams: Gradient Descent with Adaptive Momentum Scaling",
        arXiv:2412.17107, Algorithm 1.
    Departure: none.
    Limits: a zero gradient entry stops that entry, whatever its momentum.
    """
    return chain(
        direct_by_grams(scale_by_adam(b1, b2=b2, eps=eps)),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
