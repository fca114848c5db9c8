"""Stable-SPAM: Adam of clipped and normalized gradients, begun again from time to time."""

from gradkit._compose.reset.reset_by_period import reset_by_period
from gradkit._core import check, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.adaptive.gradient_norm import scale_by_gradient_norm
from gradkit._transform.clip.spike import clip_by_spike


@factory
def stable_spam(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    norm_b1: Hyper = 0.7,
    norm_b2: Hyper = 0.9,
    spike_decay: Hyper = 0.999,
    every: Hyper = 1000,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """AdamW with spike-aware clipping, adaptive norm scaling, and momentum reset.

    `clip_by_spike` -> `scale_by_gradient_norm` -> `reset_by_period(scale_by_adam)` ->
    `step_by_learning_rate` -> `decay_by_weight`

    Args:
        norm_b1: decay of the EMA of the norm of a leaf.
        norm_b2: decay of the EMA of the squared norm of a leaf.
        spike_decay: decay of the EMA of the size of a leaf's largest entry.
        every: updates between two resets of Adam's moments and their counter.
        eps: added to both RMS, of a leaf's norm in units of the gradient, and of normalized gradients
            in none.
        learning_rate, b1, b2, weight_decay, mask: see the glossary.

    Needs: params.
    State: `8*size + 12` bytes a leaf, `24` once.
    Flops: at most `58*size + 130` a leaf, `60` once.
    Paper: Huang et al., "Stable-SPAM: How to Train in 4-Bit More Stably than 16-Bit Adam",
        arXiv:2502.17055, Algorithm 1.
    Departure: a reset starts Adam anew. The authors' code resets one update earlier; that update
        still steps along the old moments, bias-corrected as if they were new, and its gradient is
        lost. It also resets the counters that correct norms and maxima for bias, but not their
        EMAs. Its optional cosine on `b1` and `norm_b1` is `optax.inject_hyperparams` over the
        parts.
    Limits: gradients are near unit norm, however small the loss makes them. After a reset a
        step is as large as the first: warm the learning rate up again if that was needed.
    """
    check.interval(
        "stable_spam",
        "[0, 1)",
        norm_b1=norm_b1,
        norm_b2=norm_b2,
        spike_decay=spike_decay,
    )
    return chain(
        clip_by_spike(spike_decay),
        scale_by_gradient_norm(norm_b1, b2=norm_b2, eps=eps),
        reset_by_period(scale_by_adam(b1, b2=b2, eps=eps), every=every),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
