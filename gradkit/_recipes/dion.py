"""Dion for hidden matrices, Adam for everything else."""

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
from gradkit._transform.subspace.dion import project_by_dion


@factory
def dion(
    learning_rate: Rate = 0.01,
    *,
    rank: int = 768,
    momentum: Hyper = 0.95,
    eps: Hyper = 1e-8,
    consistent_rms: Hyper | None = None,
    adam_lr_ratio: Hyper = 1.0,
    b1: Hyper = 0.9,
    b2: Hyper = 0.95,
    adam_eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.01,
    mask: Mask = None,
    key: random.Key = 0,
    hidden: Hidden = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
) -> Transform:
    """Orthonormalized low-rank updates with error feedback for hidden matrices, Adam for all else.

    hidden matrices: `project_by_dion` -> step and decay;
    all others: `scale_by_adam` -> step and decay, at `adam_lr_ratio` times the rate

    Args:
        learning_rate: see the glossary. For matrices, the RMS of what an update adds to an output,
            for inputs of 1.
        rank: of an update, at most the shorter side of a matrix.
        momentum: the fraction of the low-rank part that stays in the momentum (error feedback).
        eps: added to the norms of right factors, in units of the gradient.
        adam_lr_ratio, b1, b2, adam_eps, consistent_rms, weight_decay, mask, key, hidden, batch_axes,
            model: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `4*size + 4*rows*min(rank, rows, cols) if ndim > 1 else 8*size` bytes a leaf,
        `20` once.
    Flops: at most `9*size*min(rank, rows, cols) + 64*size` a leaf, and a QR decomposition.
    Paper: Ahn, Xu, Abreu, Fan, Magakyan, Sharma, Zhan and Langford, "Dion: Distributed
        Orthonormalized Updates", arXiv:2504.05295, Algorithm 1.
    Departure: a column of the right factor that is zero stays as it was (`project_by_dion`). The
        paper scales the rates of embeddings, readouts and vectors each by their own shape: to do
        so, use `route`.
    Limits: updates of matrices cannot be differentiated.
    """
    check.interval("dion", "[0, 1)", momentum=momentum)
    check.nonnegative("dion", adam_lr_ratio=adam_lr_ratio, adam_eps=adam_eps)
    slow = rate.product(learning_rate, adam_lr_ratio)
    matrices = chain(
        project_by_dion(
            rank,
            decay=momentum,
            eps=eps,
            consistent_rms=consistent_rms,
            key=key,
            batch_axes=batch_axes,
        ),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
    vectors = chain(
        scale_by_adam(b1, b2=b2, eps=adam_eps),
        step_by_learning_rate(slow),
        decay_by_weight(rate.lr_scaled_decay(slow, weight_decay), mask=mask),
    )
    return split("dion", hidden, batch_axes, matrices, vectors)
