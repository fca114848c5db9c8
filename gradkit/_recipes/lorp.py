"""GradNormLoRP over Adam for hidden matrices, Adam for everything else."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.matrix import layout
from gradkit._core.routing.hidden import Hidden, split
from gradkit._core.types import Hyper, Model, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.subspace.weight_norm import project_by_weight_norm


@factory
def lorp(
    learning_rate: Rate = 1e-3,
    *,
    rank: int = 256,
    every: int = 200,
    scale: Hyper = 1.0,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    hidden: Hidden = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
) -> Transform:
    """Adam on the norms of weight-normalized columns, and on their directions in a low rank.

    hidden matrices: `project_by_weight_norm(scale_by_adam)`; all others: `scale_by_adam`;
    then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        every: update interval of the projector.
        scale: the learning rate of directions, as a multiple of that of norms.
        eps: added to the RMS before bias correction, in units of the gradient.
        learning_rate, rank, b1, b2, weight_decay, mask, hidden, batch_axes, model: see the glossary.

    Needs: params.
    State: `(4*min(rank, rows, cols)*(min(rows, cols) + 2*max(rows, cols)) + 8*cols + 1
        if ndim > 1 else 8*size)` bytes a leaf, `24` once.
    Flops: at most `3*size*min(rows, cols) + 8*size*min(rank, rows, cols) + 90*size` a leaf.
    Paper: Huang and others, "Gradient Weight-normalized Low-rank Projection for Efficient LLM
        Training", arXiv:2412.19616, Algorithm 1.
    Departure: columns are normalized at every update (`project_by_weight_norm`).
    Limits: a column of zeros has no direction, and does not move. An update cannot be
        differentiated through its factorizations.
    """
    adam = scale_by_adam(b1, b2=b2, eps=rate.before_bias_correction(eps, b2))
    low_rank = project_by_weight_norm(
        adam, rank=rank, every=every, scale=scale, batch_axes=batch_axes
    )
    return chain(
        split("lorp", hidden, batch_axes, low_rank, adam),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
