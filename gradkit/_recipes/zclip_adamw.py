"""ZClip over AdamW."""

from gradkit._core import check, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.clip.zscore import clip_by_zscore


@factory
def zclip_adamw(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.95,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.1,
    mask: Mask = None,
    max_zscore: Hyper = 2.5,
    decay: Hyper = 0.97,
    warmup: Hyper = 25,
    norm_eps: Hyper = 1e-6,
    max_norm: Hyper = 1.0,
) -> Transform:
    """AdamW of gradients clipped where the z-score of their norm is large.

    `clip_by_zscore` -> `scale_by_adam` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        max_zscore: how far above its mean a norm passes, in standard deviations.
        decay: of the EMAs of mean and variance of norms.
        warmup: how many norms start them.
        norm_eps: added to the deviation of norms, in units of the gradient.
        max_norm: the largest norm that passes in any case; infinity limits nothing.
        learning_rate, b1, b2, eps, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0; `global_norm`, where given, stands for the
        norm of the whole gradient.
    State: `8*size` bytes a leaf, `24` once.
    Flops: at most `52*size + 30` a leaf, `200` once.
    Paper: Kumar, Owen, Roy Chowdhury and Gura, "ZClip: Adaptive Spike Mitigation for LLM
        Pre-Training", arXiv:2504.02507, with the limit of 1 that the authors' code adds.
    Departure: norms of zero are not counted (`clip_by_zscore`).
    Limits: only `max_norm` limits the first `warmup` updates.
    """
    check.nonnegative("zclip_adamw", norm_eps=norm_eps)
    return chain(
        clip_by_zscore(
            max_zscore, decay=decay, warmup=warmup, eps=norm_eps, max_norm=max_norm
        ),
        scale_by_adam(b1, b2=b2, eps=eps),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
