"""Subset norm and subspace momentum for hidden matrices, a subset norm for everything else."""

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
from gradkit._transform.adaptive.subset_norm import scale_by_subset_norm
from gradkit._transform.subspace.subspace_momentum import project_by_subspace_momentum


@factory
def snsm(
    learning_rate: Rate = 1e-3,
    *,
    rank: int = 128,
    every: int = 200,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    hidden: Hidden = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
) -> Transform:
    """Average hidden matrices only where they are largest, and divide subsets by their norm.

    hidden matrices: `project_by_subspace_momentum` of an average, all others: an average;
    both in `scale_by_subset_norm`; then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        learning_rate: a number or a schedule.
        rank: directions of a matrix that have momentum, at most its small side.
        every: updates between two looks at the gradient's singular vectors.
        b1: decay of the average gradient.
        b2: decay of the average squared norm of a subset.
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

    Needs: params, unless `weight_decay` is 0.
    State: `(4*min(rank, rows, cols)*(min(rows, cols) + max(rows, cols))
        if ndim > 1 else 4*size)
        + 4*size/max(k for k in range(1, size + 1) if size % k == 0 and k*k <= size)`
        bytes a leaf, `28` once.
    Flops: at most `3*size*min(rows, cols) + 8*size*min(rank, rows, cols) + 64*size + 64` a leaf.
    Paper: Nguyen and Nguyen, "Efficient Adaptive Optimization via Subset-Norm and
        Subspace-Momentum: Fast, Memory-Reduced Training with Convergence Guarantees",
        arXiv:2411.07120, AdamSNSM.
    Departure: those of `project_by_subspace_momentum` and `scale_by_subset_norm`. The release
        decays weights by what they are after the update.
    Limits: names decide what is hidden, and linen's last `Dense_i` is named as any other: look at
        `gradkit.routes`, or set `hidden`. An update cannot be differentiated through its
        factorizations.
    """
    check.fraction("snsm", b1=b1)
    average = optax.ema(b1, debias=False)
    inside = project_by_subspace_momentum(
        average, rank=rank, every=every, batch_axes=batch_axes
    )
    numerator = chain(
        split("snsm", hidden, batch_axes, inside, average, "average"),
        optax.scale_by_schedule(rate.debiasing(b1)),
    )
    return chain(
        scale_by_subset_norm(numerator, b2=b2, eps=rate.before_debiasing(eps, b2)),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.coupled_decay(learning_rate, weight_decay), mask=mask),
    )
