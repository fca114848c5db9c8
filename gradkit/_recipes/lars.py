"""LARS: momentum of gradients as long as the weights they move."""

from gradkit._core import check, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.momentum.heavy_ball import average_by_heavy_ball
from gradkit._transform.normalize.trust_ratio import normalize_by_trust_ratio


@factory
def lars(
    learning_rate: Rate = 1.0,
    *,
    trust: Hyper = 1e-3,
    momentum: Hyper = 0.9,
    weight_decay: Hyper = 5e-4,
    mask: Mask = None,
) -> Transform:
    """Momentum of gradients scaled, leaf by leaf, to the norm of the weights (trust ratio).

    `normalize_by_trust_ratio` -> `step_by_learning_rate` -> `average_by_heavy_ball`

    Args:
        learning_rate: see the glossary. It multiplies what enters the momentum.
        trust: times the learning rate, the fraction of its norm by which a leaf would move without
            momentum.
        momentum: decay of the sum of steps; 0 takes each step alone.
        weight_decay: fraction of each parameter that is added to its gradient.
        mask: see the glossary.

    Needs: params.
    State: `4*size` bytes a leaf, `4` once.
    Flops: at most `34*size + 100` a leaf, `100` once.
    Paper: You, Gitman and Ginsburg, "Large Batch Training of Convolutional Networks",
        arXiv:1708.03888, Algorithm 1.
    Departure: a leaf whose norm, or whose gradient's, is zero moves along the gradient by
        `learning_rate * trust`; in the paper it would never move. Later implementations (optax,
        MoCo) divide by the norm of the sum of gradient and decay, not by the sum of their norms:
        so does `lamb`. Each leaf is a layer: a kernel and its bias are two.
    Limits: gains and biases are usually kept apart: use `gradkit.route`.
    """
    check.interval("lars", "[0, 1)", momentum=momentum)
    check.nonnegative("lars", learning_rate=learning_rate, trust=trust)
    return chain(
        normalize_by_trust_ratio(weight_decay, mask=mask),
        step_by_learning_rate(rate.product(learning_rate, trust)),
        average_by_heavy_ball(momentum),
    )
