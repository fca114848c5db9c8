"""AdaMomentum, with decoupled weight decay."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adamomentum import scale_by_adamomentum


@factory
def adamomentum(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """Adam whose second moment is that of the momentum, not of the gradient.

    `scale_by_adamomentum` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        b2: decay of the EMA of the squared momentum.
        eps: added to that EMA at every update, in units of the squared gradient.
        learning_rate, b1, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `8*size` bytes a leaf, `12` once.
    Flops: at most `34*size` a leaf.
    Paper: Wang et al., "Rethinking Adam: A Twofold Exponential Moving Average Approach",
        arXiv:2106.11514, the update of AdaMomentum.
    Departure: weight decay is added, decoupled as in AdamW.
    Limits: the first steps are up to `1 / (1 - b1)` times Adam's; warm the learning rate up.
    """
    return chain(
        scale_by_adamomentum(b1, b2=b2, eps=eps),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
