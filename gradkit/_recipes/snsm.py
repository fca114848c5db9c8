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
    """Momentum in a low-rank subspace, over one second moment for each subset of entries.

    hidden matrices: `project_by_subspace_momentum` of an EMA, all others: an EMA;
    both in `scale_by_subset_norm`; then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        every: update interval of the projector.
        b2: decay of the EMA of the squared norm of a subset.
        eps: added to the root of that EMA before bias correction, in units of the gradient.
        learning_rate, rank, b1, weight_decay, mask, hidden, batch_axes, model: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `(4*min(rank, rows, cols)*(min(rows, cols) + max(rows, cols)) + 1
        if ndim > 1 else 4*size)
        + 4*size/max(k for k in range(1, size + 1) if size % k == 0 and k*k <= size)`
        bytes a leaf, `28` once.
    Flops: at most `3*size*min(rows, cols) + 8*size*min(rank, rows, cols) + 64*size + 64` a leaf.
    Paper: Nguyen and Nguyen, "Efficient Adaptive Optimization via Subset-Norm and
        Subspace-Momentum: Fast, Memory-Reduced Training with Convergence Guarantees",
        arXiv:2411.07120, AdamSNSM.
    Departure: bases are renewed at other updates than in the authors' code
        (`project_by_subspace_momentum`), which also decays weights after the step.
    Limits: an update cannot be differentiated through its factorizations.
    """
    check.interval("snsm", "[0, 1)", b1=b1)
    average = optax.ema(b1, debias=False)
    inside = project_by_subspace_momentum(
        average, rank=rank, every=every, batch_axes=batch_axes
    )
    numerator = chain(
        split("snsm", hidden, batch_axes, inside, average, "average"),
        optax.scale_by_schedule(rate.bias_correction(b1)),
    )
    return chain(
        scale_by_subset_norm(
            numerator, b2=b2, eps=rate.before_bias_correction(eps, b2)
        ),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
