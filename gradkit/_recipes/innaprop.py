"""INNAprop, as in its authors' code."""

from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.innaprop import scale_by_innaprop


@factory
def innaprop(
    learning_rate: Rate = 1e-3,
    *,
    alpha: Hyper = 0.1,
    beta: Hyper = 0.9,
    decay: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.01,
    mask: Mask = None,
) -> Transform:
    """Inertial Newton dynamics (INNA) on RMSprop-scaled gradients, with decoupled weight decay.

    `scale_by_innaprop` -> `step_by_learning_rate`

    Args:
        learning_rate: see the glossary. It must stay below `beta`.
        alpha: friction of the dynamics.
        beta: weight of the curvature.
        decay: of the EMA of the squared gradient.
        eps, weight_decay, mask: see the glossary.

    Needs: params.
    State: `8*size` bytes a leaf, `8` once.
    Flops: at most `38*size` a leaf.
    Paper: Bolte, Boustany, Pauwels and Purica, "A second-order-like optimizer with adaptive
        gradient scaling for deep learning", arXiv:2410.05871, Algorithm 1.
    Departure: none.
    Limits: singular where `learning_rate` reaches `beta`, also in the middle of a schedule.
    """
    return chain(
        scale_by_innaprop(
            learning_rate,
            alpha=alpha,
            beta=beta,
            decay=decay,
            eps=eps,
            weight_decay=weight_decay,
            mask=mask,
        ),
        step_by_learning_rate(learning_rate),
    )
