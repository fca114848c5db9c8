"""AdamP, as in its authors' code."""

from gradkit._core import check, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Scalar, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.normalize.tangent import normalize_by_tangent


@factory
def adamp(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Rate = 1e-8,
    delta: Hyper = 0.1,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    wd_ratio: Hyper = 0.1,
) -> Transform:
    """AdamW with the radial part of updates projected out of scale-invariant weights.

    `normalize_by_tangent(scale_by_adam -> step_by_learning_rate -> decay_by_weight)` ->
    `decay_by_weight`

    The fraction `1 - wd_ratio` of the decay stands inside: being radial, it is projected out where
    updates are. The remaining fraction stands outside and stays.

    Args:
        delta: how far from orthogonal to its weights a gradient may be: the bound of the
            cosine for a unit of one entry.
        wd_ratio: the fraction of the decay that stays where an update is projected.
        learning_rate, b1, b2, eps, weight_decay, mask: see the glossary.

    Needs: params.
    State: `8*size` bytes a leaf, `16` once.
    Flops: at most `94*size + 40*cols + 40` a leaf.
    Paper: Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on
        Scale-invariant Weights", arXiv:2006.08217, Algorithm 2.
    Departure: as in the authors' code, weights decay `wd_ratio` times as fast where an update is
        projected, which the paper mentions in its experiments. That code adds `eps` to norms.
    Limits: stacked layers count as one leaf (`normalize_by_tangent`).
    """
    check.interval("adamp", "[0, 1]", wd_ratio=wd_ratio)
    check.nonnegative("adamp", weight_decay=weight_decay)

    def decay(fraction: Scalar) -> Transform:
        return decay_by_weight(
            rate.lr_scaled_decay(learning_rate, fraction * weight_decay), mask=mask
        )

    step = step_by_learning_rate(learning_rate)
    adamw = chain(scale_by_adam(b1, b2=b2, eps=eps), step, decay(1 - wd_ratio))
    return chain(normalize_by_tangent(adamw, delta=delta), decay(wd_ratio))
