"""Schedule-free AdamW, as in its authors' code."""

import optax

from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.size.schedule_free import step_by_schedule_free
from gradkit._transform.adaptive.second_moment import scale_by_second_moment


@factory
def schedule_free_adamw(
    learning_rate: Rate = 2.5e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-8,
    power: Hyper = 0.0,
    lr_power: Hyper = 2.0,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """AdamW whose parameters are averaged as it goes, so that the learning rate need not fall.

    `step_by_schedule_free(scale_by_second_moment)`; evaluate at `gk.eval_params(state, params)`.

    Args:
        learning_rate: a number, or a schedule that warms up to one.
        b1: the fraction of the average in the parameters, in place of momentum.
        power: later iterates weigh as this power of time.
        lr_power: iterates weigh as this power of the largest learning rate so far.
        b2, eps, weight_decay, mask: see the glossary.

    Needs: params.
    State: `12*size` bytes a leaf, `16` once.
    Flops: at most `36*size` a leaf, `60` once.
    Paper: Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky, "The Road Less Scheduled",
        arXiv:2405.15682, AdamW Schedule-Free.
    Departure: the average is kept; the authors' code computes it from the rest.
    Limits: last in a chain. The authors advise one to ten times the learning rate of AdamW.
        Statistics of batch normalization must be taken again at the average. The state holds
        parameters: do not keep it in few bits by a `store_by_`.
    """
    step = step_by_schedule_free(
        scale_by_second_moment(optax.identity(), b2=b2, eps=eps),
        learning_rate=learning_rate,
        b1=b1,
        power=power,
        lr_power=lr_power,
        weight_decay=weight_decay,
        mask=mask,
    )
    return chain(step)  # which rounds the update to the parameters' dtype
