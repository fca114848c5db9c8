"""Adam-atan2, as in adam-atan2-pytorch."""

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam_atan2 import scale_by_adam_atan2


@factory
def adam_atan2(
    learning_rate: Rate = 1e-4,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    a: Hyper = 1.27,
    b: Hyper = 1.0,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """Adam with `atan2` in place of the division, and so without `eps`.

    `scale_by_adam_atan2` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        a: length of a direction per radian.
        b: the ratio of EMA to RMS at which the angle is 45 degrees.
        learning_rate, b1, b2, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `8*size` bytes a leaf, `12` once.
    Flops: at most `80*size` a leaf.
    Paper: Everett et al., "Scaling Exponents Across Parameterizations and Optimizers",
        arXiv:2407.05872, the section on Adam-atan2.
    Departure: `learning_rate`, `b2`, `a` and `b` are those of the adam-atan2-pytorch package;
        the paper leaves them open.
    Limits: no entry moves by more than `a * pi / 2` learning rates; a gradient of pure noise
        is not damped by any `eps`.
    """
    return chain(
        scale_by_adam_atan2(b1, b2=b2, a=a, b=b),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
