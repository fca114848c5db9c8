"""ZClip over AdamW."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.types import Rate, Scalar, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.clip.global_norm import clip_by_global_norm
from gradkit._transform.clip.zscore import clip_by_zscore


def zclip_adamw(
    learning_rate: Rate = 1e-3,
    b1: Scalar = 0.9,
    b2: Scalar = 0.95,
    eps: Scalar = 1e-8,
    weight_decay: Scalar = 0.1,
    max_zscore: Scalar = 2.5,
    decay: Scalar = 0.97,
    warmup: Scalar = 25,
    norm_eps: Scalar = 1e-6,
    max_norm: Scalar = 1.0,
) -> Transform:
    """AdamW of gradients clipped where their norm stands out from those before.

    `clip_by_zscore` -> `clip_by_global_norm` -> `scale_by_adam` -> `step_by_learning_rate` ->
    `decay_by_weight`

    Args:
        learning_rate: a number or a schedule.
        b1: decay of the average gradient.
        b2: decay of the average squared gradient.
        eps: added to the root of the average square, in units of the gradient.
        weight_decay: times the learning rate, the share of each parameter lost in one update.
        max_zscore: how far above its mean a norm passes, in standard deviations.
        decay: of the mean and the variance of norms.
        warmup: how many norms start them.
        norm_eps: added to the deviation of norms, in units of the gradient.
        max_norm: the largest norm that passes in any case; infinity limits nothing.

    Needs: params; `global_norm`, where given, stands for the norm of the whole gradient.
    State: `8*size` bytes a leaf, `24` once.
    Flops: at most `52*size + 30` a leaf, `200` once.
    Paper: Kumar, Owen, Roy Chowdhury and Gura, "ZClip: Adaptive Spike Mitigation for LLM
        Pre-Training", arXiv:2504.02507, with the limit of 1 that its release adds.
    Departure: that of `clip_by_zscore`. A `global_norm` that is given is that before ZClip, so
        `max_norm` then shrinks a spike once more.
    Limits: those of `clip_by_zscore`: only `max_norm` limits the first `warmup` updates.
    """
    return chain(
        clip_by_zscore(max_zscore, decay, warmup, norm_eps),
        clip_by_global_norm(max_norm),
        scale_by_adam(b1, b2, eps),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.coupled_decay(learning_rate, weight_decay)),
    )
