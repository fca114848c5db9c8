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
    """Adam that remembers each hidden matrix only where its gradient is largest.

    hidden matrices: `project_by_svd(scale_by_adam)`; all others: `scale_by_adam`;
    then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        learning_rate: a number or a schedule.
        rank: directions kept of a matrix, at most its small side.
        every: updates between two looks at the gradient's singular vectors.
        scale: the learning rate of hidden matrices, as a share of the others'.
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
        side: the one that is cut: the "small" one, or the "large" one, for less memory.

    Needs: params, unless `weight_decay` is 0.
    State: `(4*min(rank, rows, cols)
        *(rows + cols + (max if side == "small" else min)(rows, cols))
        if ndim > 1 else 8*size)` bytes a leaf, `20` once.
    Flops: at most `16*size*min(rows, cols) + 56*size` a leaf.
    Paper: Zhao and others, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
        Projection", arXiv:2403.03507, Algorithm 2.
    Departure: that of `project_by_svd`; `side="large"` is the release's "reverse_std". Weights
        decay by what they were before the update, as in AdamW; the release's by what they are
        after it.
    Limits: names decide what is hidden, and linen's last `Dense_i` is named as any other: look at
        `gradkit.routes`, or set `hidden`. Averages kept over a change of basis mean something else
        after it: expect small jumps of the loss. An update cannot be differentiated through its
        factorizations.
    """
    adam = scale_by_adam(b1, b2=b2, eps=rate.before_debiasing(eps, b2))
    low_rank = project_by_svd(
        adam, rank=rank, every=every, scale=scale, batch_axes=batch_axes, side=side
    )
    return chain(
        split("galore", hidden, batch_axes, low_rank, adam),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.coupled_decay(learning_rate, weight_decay), mask=mask),
    )
