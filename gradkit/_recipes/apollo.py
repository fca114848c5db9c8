"""APOLLO: columns as long as Adam makes their random shadows."""

import optax

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
from gradkit._transform.subspace.random import project_by_random


@factory
def apollo(
    learning_rate: Rate = 1e-2,
    *,
    rank: int = 256,
    every: int = 200,
    scale: Hyper = 1.0,
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
    """Step along the gradient, each channel scaled as Adam scales a random projection of it.

    hidden matrices: `project_by_random(scale_by_adam)`, bias-corrected after it, not within; all
    others: `scale_by_adam`; then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        rank: rows of the random projection, at most the small side of a matrix.
        every: update interval of the projector.
        eps: added to the RMS before bias correction, in units of the gradient.
        shadow_eps: added to the norms of the projected columns, in units of the gradient.
        learning_rate, scale, growth, floor, b1, b2, weight_decay, mask, key, hidden, batch_axes,
            model: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `(4*min(rank, rows, cols)*(1 + 2*max(rows, cols)) + 4
        if ndim > 1 else 8*size)` bytes a leaf, `36` once.
    Flops: at most `6*size*min(rank, rows, cols)
        + 300*min(rank, rows, cols)*max(rows, cols) + 90*size` a leaf.
    Paper: Zhu and others, "APOLLO: SGD-like Memory, AdamW-level Performance",
        arXiv:2412.05270, Algorithm 1, by channels.
    Departure: the projection has random signs in place of normal numbers (`project_by_random`).
        The authors' code decays weights after the step.
    Limits: directions are those of the gradient: nothing but their lengths is averaged.
    """
    check.nonnegative("apollo", shadow_eps=shadow_eps)
    adam = scale_by_adam(b1, b2=b2, eps=rate.before_bias_correction(eps, b2))
    correction = rate.adam_bias_correction(b1, b2)
    biased = chain(adam, optax.scale_by_schedule(lambda t: 1 / correction(t)))
    shadows = project_by_random(
        biased,
        rank=rank,
        every=every,
        scale=scale,
        growth=growth,
        eps=shadow_eps,
        floor=floor,
        key=key,
        batch_axes=batch_axes,
    )
    low_rank = chain(shadows, optax.scale_by_schedule(correction))
    return chain(
        split("apollo", hidden, batch_axes, low_rank, adam),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
