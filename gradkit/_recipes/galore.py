"""GaLore over Adam for hidden matrices, Adam for everything else."""

from gradkit import subspace
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
from gradkit._transform.subspace.svd import project_by_svd


@factory
def galore(
    learning_rate: Rate = 1e-2,
    *,
    rank: int = 128,
    every: int = 200,
    scale: Hyper = 0.25,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    hidden: Hidden = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
    side: subspace.Side = "small",
) -> Transform:
    """Adam on each hidden matrix's gradient projected onto its leading singular vectors.

    hidden matrices: `project_by_svd(scale_by_adam)`; all others: `scale_by_adam`;
    then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        every: update interval of the projector.
        eps: added to the RMS before bias correction, in units of the gradient.
        side: which side is projected: the "small" one, or the "large" one, for less memory.
        learning_rate, rank, scale, b1, b2, weight_decay, mask, hidden, batch_axes, model: see the
            glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `(4*min(rank, rows, cols)
        *(rows + cols + (max if side == "small" else min)(rows, cols)) + 1
        if ndim > 1 else 8*size)` bytes a leaf, `20` once.
    Flops: at most `16*size*min(rows, cols) + 56*size` a leaf.
    Paper: Zhao and others, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
        Projection", arXiv:2403.03507, Algorithm 2.
    Departure: singular vectors are eigenvectors of a Gram matrix, with fixed signs
        (`project_by_svd`). `side="large"` is "reverse_std" in the authors' code, which decays
        weights after the step.
    Limits: moments are kept as they are when the basis changes: expect small jumps of the loss.
        An update cannot be differentiated through its factorizations.
    """
    adam = scale_by_adam(b1, b2=b2, eps=rate.before_bias_correction(eps, b2))
    low_rank = project_by_svd(
        adam, rank=rank, every=every, scale=scale, batch_axes=batch_axes, side=side
    )
    return chain(
        split("galore", hidden, batch_axes, low_rank, adam),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
