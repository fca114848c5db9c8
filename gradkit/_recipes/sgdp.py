"""SGDP, as in its authors' code."""

from gradkit._core import check, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Scalar, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.momentum.heavy_ball import average_by_heavy_ball
from gradkit._transform.normalize.tangent import normalize_by_tangent


@factory
def sgdp(
    learning_rate: Rate = 1e-2,
    *,
    momentum: Hyper = 0.9,
    delta: Hyper = 0.1,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    wd_ratio: Hyper = 0.1,
) -> Transform:
    """Momentum SGD with the radial part of updates projected out of scale-invariant weights.

    `normalize_by_tangent(average_by_heavy_ball -> step_by_learning_rate -> decay_by_weight)` ->
    `decay_by_weight`

    The fraction `1 - wd_ratio` of the decay stands inside: being radial, it is projected out where
    updates are. The remaining fraction stands outside and stays.

    Args:
        delta: how far from orthogonal to its weights a gradient may be: the bound of the
            cosine for a unit of one entry.
        weight_decay: times `learning_rate / (1 - momentum)`, the fraction of each parameter lost
            in one update: as much as torch's, which enters the momentum.
        wd_ratio: the fraction of the decay that stays where an update is projected.
        learning_rate, momentum, mask: see the glossary.

    Needs: params.
    State: `4*size` bytes a leaf, `12` once.
    Flops: at most `76*size + 40*cols + 40` a leaf.
    Paper: Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on
        Scale-invariant Weights", arXiv:2006.08217, Algorithm 1.
    Departure: as in the authors' code, the decay is decoupled, and `wd_ratio` times as fast where
        an update is projected. That code also projects its momentum, by writing over it, unless
        that is Nesterov's: for this, chain the parts with `average_by_nesterov`. It adds `1e-8`
        to norms.
    Limits: stacked layers count as one leaf (`normalize_by_tangent`).
    """
    check.interval("sgdp", "[0, 1)", momentum=momentum)
    check.interval("sgdp", "[0, 1]", wd_ratio=wd_ratio)
    check.nonnegative("sgdp", weight_decay=weight_decay)
    average = average_by_heavy_ball(momentum)
    total = weight_decay / (1 - momentum)

    def decay(fraction: Scalar) -> Transform:
        return decay_by_weight(
            rate.lr_scaled_decay(learning_rate, fraction * total), mask=mask
        )

    step = step_by_learning_rate(learning_rate)
    sgd = chain(average, step, decay(1 - wd_ratio))
    return chain(normalize_by_tangent(sgd, delta=delta), decay(wd_ratio))
