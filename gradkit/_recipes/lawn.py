"""Adam-LAWN: Adam that fixes the norms of weights after some free updates."""

from gradkit._apply.manifold.fixed_norm import retract_by_fixed_norm
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam


@factory
def lawn(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    free_steps: Hyper = 1000,
) -> Transform:
    """Adam that keeps the norm of each leaf, after some free updates.

    `scale_by_adam` -> `step_by_learning_rate` -> `retract_by_fixed_norm`

    Args:
        free_steps: updates before the norms are fixed. In the paper a few epochs are best.
        learning_rate, b1, b2, eps: see the glossary.

    Needs: params.
    State: `8*size + 4` bytes a leaf, `12` once.
    Flops: at most `64*size + 40` a leaf, `40` once.
    Paper: Gupta and others, "Logit Attenuating Weight Normalization", arXiv:2108.05839,
        Adam-LAWN.
    Departure: updates, not gradients, are projected onto the tangent space. Moments are kept
        when norms become fixed. The default of `free_steps` is ours.
    Limits: the norms of leaves of fewer than two axes stay free.
    """
    return chain(
        scale_by_adam(b1, b2=b2, eps=eps),
        step_by_learning_rate(learning_rate),
        retract_by_fixed_norm(free_steps),
    )
