"""Gravity, as in its authors' Keras code."""

from gradkit._core import random
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.normalize.gravity import normalize_by_gravity


@factory
def gravity(
    learning_rate: Rate = 0.1,
    *,
    decay: Hyper = 0.9,
    start: Hyper = 0.1,
    key: random.Key = 0,
) -> Transform:
    """Momentum of gradients that are damped where they are large, entry by entry.

    `normalize_by_gravity` -> `step_by_learning_rate`

    Args:
        decay: of the EMA of the velocity in the long run; the paper's `beta`.
        start: standard deviation of the first velocities, in units of the gradient; the
            paper's `alpha / learning_rate`, with its `alpha = 0.01`.
        learning_rate, key: see the glossary.

    State: `4*size` bytes a leaf, `16` once.
    Flops: at most `18*size + 20` a leaf, `10` once.
    Paper: Bahrami and Pouriyan Zadeh, "Gravity Optimizer: a Kinematic Approach on Optimization
        in Deep Learning", arXiv:2101.09192.
    Departure: updates count from 0, as in the authors' Keras code; their PyTorch code counts from
        1.
    Limits: not for large gradients, which hardly count (`normalize_by_gravity`).
    """
    return chain(
        normalize_by_gravity(decay, start=start, key=key),
        step_by_learning_rate(learning_rate),
    )
