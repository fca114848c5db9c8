"""Fira over Adam for hidden matrices, Adam for everything else."""

import optax

from gradkit._core import check, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.matrix import layout
from gradkit._core.routing.hidden import Hidden, split
from gradkit._core.types import Hyper, Model, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.subspace.fira import project_by_fira


@factory
def fira(
    learning_rate: Rate = 1e-2,
    *,
    rank: int = 128,
    every: int = 200,
    scale: Hyper = 0.25,
    growth: Hyper = 1.01,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    column_eps: Hyper = 1e-8,
    floor: Hyper = 0.0,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    hidden: Hidden = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
) -> Transform:
    """GaLore that adds the residual, scaled column by column as Adam scales the projection.

    hidden matrices: `project_by_fira(scale_by_adam)`, bias-corrected after it, not within; all
    others: `scale_by_adam`; then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        every: update interval of the projector.
        eps: added to the RMS before bias correction, in units of the gradient.
        column_eps: added to the norms of the projected columns, in units of the gradient.
        learning_rate, rank, scale, growth, floor, b1, b2, weight_decay, mask, hidden, batch_axes,
            model: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `(4*min(rank, rows, cols)*(min(rows, cols) + 2*max(rows, cols)) + 5
        if ndim > 1 else 8*size)` bytes a leaf, `28` once.
    Flops: at most `16*size*min(rows, cols) + 96*size` a leaf.
    Paper: Chen and others, "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
        Constraint?", arXiv:2410.01623, Algorithm 1.
    Departure: `scale` does not multiply the residual, as in the authors' code
        (`project_by_fira`). The paper has one epsilon; their code has these two, with these
        values, and limits the growth before bias correction, as here. It decays weights after the
        step.
    Limits: after much smaller gradients the residual recovers slowly, unless `floor` allows more
        (`project_by_fira`). An update cannot be differentiated through its factorizations.
    """
    check.nonnegative("fira", column_eps=column_eps)
    adam = scale_by_adam(b1, b2=b2, eps=rate.before_bias_correction(eps, b2))
    correction = rate.adam_bias_correction(b1, b2)
    biased = chain(adam, optax.scale_by_schedule(lambda t: 1 / correction(t)))
    low_rank = chain(
        project_by_fira(
            biased,
            rank=rank,
            every=every,
            scale=scale,
            growth=growth,
            eps=column_eps,
            floor=floor,
            batch_axes=batch_axes,
        ),
        optax.scale_by_schedule(correction),
    )
    return chain(
        split("fira", hidden, batch_axes, low_rank, adam),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
