"""MARS over Adam in its approximate form, as in its authors' code."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.clip.component_norm import clip_by_component_norm
from gradkit._transform.momentum.mars import average_by_mars


@factory
def mars(
    learning_rate: Rate = 3e-3,
    *,
    gamma: Hyper = 0.025,
    max_norm: Hyper = 1.0,
    b1: Hyper = 0.95,
    b2: Hyper = 0.99,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """AdamW of variance-reduced gradients: corrected by their scaled change, and clipped.

    `average_by_mars` -> `clip_by_component_norm` -> `scale_by_adam` ->
    `step_by_learning_rate` -> `decay_by_weight`

    Args:
        gamma: strength of the correction; 0 is none.
        max_norm: the largest norm of a leaf's corrected gradient that passes.
        b1: decay of the EMA of corrected gradients.
        b2: decay of the EMA of their squares.
        learning_rate, eps, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `12*size` bytes a leaf, `12` once.
    Flops: at most `58*size + 20` a leaf.
    Paper: Yuan, Liu, Wu, Zhou and Gu, "MARS: Unleashing the Power of Variance Reduction for
        Training Large Models", arXiv:2411.10438, MARS-AdamW, approximate.
    Departure: as in the authors' code, the gradient before the first counts as zero. Every leaf
        is treated alike, as in that code with `optimize_1d=True`; by default it gives all but
        matrices to AdamW, for which use `route`.
    Limits: keeps the last gradient, so half as much memory again as Adam's.
    """
    return chain(
        average_by_mars(gamma, b1=b1),
        clip_by_component_norm(max_norm),
        scale_by_adam(b1, b2=b2, eps=eps),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
