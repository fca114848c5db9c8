"""AdamP, as its authors release it."""

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
    """AdamW that does not lengthen weights whose length the loss does not feel.

    `normalize_by_tangent(scale_by_adam -> step_by_learning_rate -> decay_by_weight)` ->
    `decay_by_weight`

    Of the decay, the share `1 - wd_ratio` stands inside: being along the weights, it goes where
    they are projected. The rest stands outside and stays.

    Args:
        learning_rate: a number or a schedule.
        b1: decay of the average gradient.
        b2: decay of the average squared gradient.
        eps: added to the root of the average square, in units of the gradient; a number or a
            schedule.
        delta: how far from orthogonal to its weights a gradient may be: the bound of the
            cosine for a unit of one entry.
        weight_decay: times the learning rate, the share of each parameter lost in one update.
        mask: which parameters decay: a tree of bools like them, or what makes one of them; `None`
            for all.
        wd_ratio: what is left of this share where an update is projected, from 0 to 1.

    Needs: params.
    State: `8*size` bytes a leaf, `16` once.
    Flops: at most `94*size + 40*cols + 40` a leaf.
    Paper: Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on
        Scale-invariant Weights", arXiv:2006.08217, Algorithm 2.
    Departure: as released, where an update is projected weights decay `wd_ratio` times as fast,
        of which the paper speaks in its experiments. The release adds `eps` to norms.
    Limits: those of `normalize_by_tangent`: stacked layers are one leaf.
    """
    check.portion("adamp", wd_ratio=wd_ratio)
    check.nonnegative("adamp", weight_decay=weight_decay)

    def decay(share: Scalar) -> Transform:
        return decay_by_weight(
            rate.coupled_decay(learning_rate, share * weight_decay), mask=mask
        )

    step = step_by_learning_rate(learning_rate)
    adamw = chain(scale_by_adam(b1, b2=b2, eps=eps), step, decay(1 - wd_ratio))
    return chain(normalize_by_tangent(adamw, delta=delta), decay(wd_ratio))
