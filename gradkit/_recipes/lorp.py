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
    """Adam on the lengths of units, and on their directions where these change most.

    hidden matrices: `project_by_weight_norm(scale_by_adam)`; all others: `scale_by_adam`;
    then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        learning_rate: a number or a schedule.
        rank: directions kept of a matrix, at most its small side.
        every: updates between two looks at the gradient's singular vectors.
        scale: the learning rate of directions, as a share of that of lengths.
        b1: decay of the average gradient.
        b2: decay of the average squared gradient.
        eps: added to the root of the average square before debiasing, in units of the
            gradient.
        weight_decay: times the learning rate, the share of each parameter lost in one update.
        mask: which parameters decay: a tree of bools like them, or what makes one of them; `None`
            for all.
        hidden: which leaves are hidden matrices: a regular expression for their paths, a
            predicate of path and leaf, or a dict of paths and bools, which leaves all other
            paths to the default: names and shapes decide. `gradkit.routes` shows how.
        batch_axes: axes that number matrices in every hidden leaf, such as `(0,)` for
            scanned layers.
        model: what `gradkit.read_model` read: it says in place of `hidden` and `batch_axes` which
            leaves are hidden matrices, and which matrices they hold.

    Needs: params.
    State: `(4*min(rank, rows, cols)*(min(rows, cols) + 2*max(rows, cols)) + 8*cols
        if ndim > 1 else 8*size)` bytes a leaf, `24` once.
    Flops: at most `3*size*min(rows, cols) + 8*size*min(rank, rows, cols) + 90*size` a leaf.
    Paper: Huang and others, "Gradient Weight-normalized Low-rank Projection for Efficient LLM
        Training", arXiv:2412.19616, Algorithm 1.
    Departure: that of `project_by_weight_norm`. Weights decay by what they were before the
        update, as in AdamW.
    Limits: names decide what is hidden, and linen's last `Dense_i` is named as any other: look at
        `gradkit.routes`, or set `hidden`. See `project_by_weight_norm`. An update cannot be
        differentiated through its factorizations.
    """
    adam = scale_by_adam(b1, b2=b2, eps=rate.before_debiasing(eps, b2))
    low_rank = project_by_weight_norm(
        adam, rank=rank, every=every, scale=scale, batch_axes=batch_axes
    )
    return chain(
        split("lorp", hidden, batch_axes, low_rank, adam),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.coupled_decay(learning_rate, weight_decay), mask=mask),
    )
