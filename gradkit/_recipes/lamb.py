"""LAMB: Adam in which every leaf moves by a share of its norm."""

import math

import optax

from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.normalize.trust_ratio import normalize_by_trust_ratio


@factory
def lamb(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Rate = 1e-6,
    weight_decay: Hyper = 1e-2,
    mask: Mask = None,
    min_norm: Hyper = 0.0,
    max_norm: Hyper = math.inf,
) -> Transform:
    """AdamW whose update of each leaf is scaled to the norm of its weights (trust ratio).

    `scale_by_adam` -> `decay_by_weight` -> `normalize_by_trust_ratio` ->
    `step_by_learning_rate`

    Args:
        learning_rate: see the glossary. It is the fraction of its norm by which a leaf moves.
        weight_decay: fraction of each parameter that is added to its direction.
        min_norm: the least norm that a leaf counts as, in units of the parameters.
        max_norm: the largest norm that a leaf counts as.
        b1, b2, eps, mask: see the glossary.

    Needs: params.
    State: `8*size` bytes a leaf, `12` once.
    Flops: at most `56*size + 100` a leaf, `100` once.
    Paper: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76
        minutes", arXiv:1904.00962, Algorithm 2.
    Departure: where a norm is zero the ratio is 1, as in published implementations. Each leaf is
        a layer: a kernel and its bias are two. Moments are bias-corrected, as in the paper, and
        not as in the authors' TensorFlow code.
    Limits: gains and biases are usually kept apart: use `gradkit.route`.
    """
    turn = optax.scale(-1.0)  # decay_by_weight subtracts
    return chain(
        scale_by_adam(b1, b2=b2, eps=eps),
        chain(turn, decay_by_weight(weight_decay, mask=mask)),
        normalize_by_trust_ratio(min_norm=min_norm, max_norm=max_norm),
        chain(turn, step_by_learning_rate(learning_rate)),
    )
