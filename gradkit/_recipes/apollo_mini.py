"""APOLLO-Mini: each matrix as long as Adam makes its random shadow, one row."""

import optax

from gradkit import subspace
from gradkit._core import check, random, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.matrix import layout
from gradkit._core.routing.hidden import Hidden, split
from gradkit._core.types import Hyper, Model, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam


@factory
def apollo_mini(
    learning_rate: Rate = 1e-2,
    *,
    every: int = 200,
    scale: Hyper = 128**0.5,
    growth: Hyper = 1.01,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    shadow_eps: Hyper = 1e-8,
    floor: Hyper = 0.0,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    key: random.Key = 0,
    hidden: Hidden = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
) -> Transform:
    """Step along the gradient, each matrix scaled as Adam scales a rank-1 projection of it.

    hidden matrices: one row of random sums into `scale_by_adam`, bias-corrected after it, not within; all
    others: `scale_by_adam`; then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        every: update interval of the projector.
        eps: added to the RMS before bias correction, in units of the gradient.
        shadow_eps: added to the norms of the projected matrices, in units of the gradient.
        learning_rate, scale, growth, floor, b1, b2, weight_decay, mask, key, hidden, batch_axes,
            model: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `(8 + 8*max(rows, cols)
        if ndim > 1 else 8*size)` bytes a leaf, `36` once.
    Flops: at most `300*max(rows, cols) + 90*size` a leaf.
    Paper: Zhu and others, "APOLLO: SGD-like Memory, AdamW-level Performance",
        arXiv:2412.05270, Algorithm 1, by tensors with `rank=1`.
    Departure: the projection has random signs in place of normal numbers (`project_by_random`).
        The authors' code decays weights after the step.
    Limits: directions are those of the gradient: nothing but their lengths is averaged.
    """
    check.nonnegative("apollo_mini", shadow_eps=shadow_eps)
    adam = scale_by_adam(b1, b2=b2, eps=rate.before_bias_correction(eps, b2))
    correction = rate.adam_bias_correction(b1, b2)
    biased = chain(adam, optax.scale_by_schedule(lambda t: 1 / correction(t)))
    matched = subspace.norm_matched(
        scale, growth=growth, eps=shadow_eps, floor=floor, axes=subspace.tensorwise
    )
    shadows = subspace.project(
        biased,
        rank=1,
        basis=subspace.rademacher(),
        schedule=subspace.every_n(every),
        residual=matched,
        key=key,
        batch_axes=batch_axes,
    )
    low_rank = chain(shadows, optax.scale_by_schedule(correction))
    return chain(
        split("apollo_mini", hidden, batch_axes, low_rank, adam),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
