"""AdaGC over AdamW."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.clip.ema_norm import clip_by_ema_norm


@factory
def adagc(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.95,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.1,
    mask: Mask = None,
    max_ratio: Hyper = 1.05,
    decay: Hyper = 0.98,
    max_norm: Hyper = 1.0,
    warmup: Hyper = 100,
) -> Transform:
    """AdamW of gradients clipped, tensor by tensor, relative to an EMA of their norms.

    `clip_by_ema_norm` -> `scale_by_adam` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        max_ratio: the largest norm of a leaf that passes, as a multiple of the EMA of its norms.
        decay: of the EMAs of the norms.
        max_norm: the largest norm of the whole gradient that passes during warm-up.
        warmup: the first update, counted from 1, at which leaves are clipped by themselves.
        learning_rate, b1, b2, eps, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0; `global_norm`, where given and finite, stands for the
        norm of the whole gradient.
    State: `8*size + 4` bytes a leaf, `16` once.
    Flops: at most `38*size + 60` a leaf, `60` once.
    Paper: Wang et al., "AdaGC: Improving Training Stability for Large Language Model
        Pretraining", arXiv:2502.11034, Algorithm 1.
    Departure: a leaf whose gradients were all zero stays in warm-up (`clip_by_ema_norm`).
    Limits: a leaf's gradients can grow only slowly (`clip_by_ema_norm`).
    """
    return chain(
        clip_by_ema_norm(max_ratio, decay=decay, max_norm=max_norm, warmup=warmup),
        scale_by_adam(b1, b2=b2, eps=eps),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
