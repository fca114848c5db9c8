"""GrassJump over Adam for hidden matrices, Adam for everything else."""

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
from gradkit._transform.subspace.grass_jump import project_by_grass_jump


@factory
def grass_jump(
    learning_rate: Rate = 1e-2,
    *,
    rank: int = 128,
    every: int = 100,
    scale: Hyper = 0.25,
    growth: Hyper = 1.01,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    column_eps: Hyper = 1e-8,
    floor: Hyper = 0.0,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    key: random.Key = 0,
    hidden: Hidden = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
) -> Transform:
    """Adam in a random subspace drawn anew at intervals, and the residual at Adam's scale.

    hidden matrices: `project_by_grass_jump(scale_by_adam)`; all others: `scale_by_adam`;
    then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        every: updates between two jumps.
        scale: see the glossary. The residual has the learning rate of all other leaves.
        column_eps: added to the norms of the projected columns, in units of the gradient.
        learning_rate, rank, growth, floor, b1, b2, eps, weight_decay, mask, key, hidden, batch_axes,
            model: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `(4*min(rank, rows, cols)*(min(rows, cols) + 2*max(rows, cols)) + 4
        if ndim > 1 else 8*size)` bytes a leaf, `28` once.
    Flops: at most `17*size*min(rank, rows, cols)
        + 240*min(rank, rows, cols)*max(rows, cols) + 72*size` a leaf.
    Paper: Rajabi and others, "Randomized Gradient Subspaces for Efficient Large Language Model
        Training", arXiv:2510.01878, GrassJump.
    Departure: moments are rotated in bias-corrected form (`project_by_grass_jump`).
    Limits: moments lose most of their norm at a jump (`project_by_grass_jump`).
    """
    check.nonnegative("grass_jump", column_eps=column_eps)
    adam = scale_by_adam(b1, b2=b2, eps=eps)
    low_rank = project_by_grass_jump(
        adam,
        rank=rank,
        every=every,
        scale=scale,
        growth=growth,
        eps=column_eps,
        floor=floor,
        b1=b1,
        b2=b2,
        key=key,
        batch_axes=batch_axes,
    )
    return chain(
        split("grass_jump", hidden, batch_axes, low_rank, adam),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
