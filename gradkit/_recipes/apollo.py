"""APOLLO: columns as long as Adam makes their random shadows."""

import optax

from gradkit._core import check, random, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.matrix import layout
from gradkit._core.routing.hidden import Hidden, split
from gradkit._core.types import Hyper, Model, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.subspace.random import project_by_random


@factory
def apollo(
    learning_rate: Rate = 1e-2,
    *,
    rank: int = 256,
    every: int = 200,
    scale: Hyper = 1.0,
    growth: Hyper = 1.01,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Hyper = 1e-6,
    shadow_eps: Hyper = 1e-8,
    floor: Hyper = 0.0,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    key: random.Key = 0,
    hidden: Hidden = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
) -> Transform:
    """Step along the gradient, each column as long as Adam makes a random projection of it.

    hidden matrices: `project_by_random(scale_by_adam)`, debiased after it, not within; all
    others: `scale_by_adam`; then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        learning_rate: a number or a schedule.
        rank: length of the shadow of a column, at most the small side of a matrix.
        every: updates between two draws of the projection.
        scale: the learning rate of hidden matrices, as a share of the others'.
        growth: how much longer a matrix's direction may get in one update, as a factor.
        b1: decay of the average gradient.
        b2: decay of the average squared gradient.
        eps: added to the root of the average square before debiasing, in units of the
            gradient.
        shadow_eps: added to the norms of what Adam sees, in units of the gradient.
        floor: the root mean square up to which a direction may always grow; Adam's is about 1.
        weight_decay: times the learning rate, the share of each parameter lost in one update.
        mask: which parameters decay: a tree of bools like them, or what makes one of them; `None`
            for all.
        key: a seed or a `jax.random` key; the same key gives the same run.
        hidden: which leaves are hidden matrices: a regular expression for their paths, a
            predicate of path and leaf, or a dict of paths and bools, which leaves all other
            paths to the default: names and shapes decide. `gradkit.routes` shows how.
        batch_axes: axes that number matrices in every hidden leaf, such as `(0,)` for
            scanned layers.
        model: what `gradkit.read_model` read: it says in place of `hidden` and `batch_axes` which
            leaves are hidden matrices, and which matrices they hold.

    Needs: params, unless `weight_decay` is 0.
    State: `(4*min(rank, rows, cols)*(1 + 2*max(rows, cols)) + 4
        if ndim > 1 else 8*size)` bytes a leaf, `36` once.
    Flops: at most `6*size*min(rank, rows, cols)
        + 300*min(rank, rows, cols)*max(rows, cols) + 90*size` a leaf.
    Paper: Zhu and others, "APOLLO: SGD-like Memory, AdamW-level Performance",
        arXiv:2412.05270, Algorithm 1, by channels.
    Departure: that of `project_by_random`. Weights decay by what they were before the update;
        the release's by what they are after it.
    Limits: names decide what is hidden, and linen's last `Dense_i` is named as any other: look
        at `gradkit.routes`, or set `hidden`. Directions are
        those of the gradient: nothing but their lengths is averaged.
    """
    check.nonnegative("apollo", shadow_eps=shadow_eps)
    adam = scale_by_adam(b1, b2=b2, eps=rate.before_debiasing(eps, b2))
    debiasing = rate.adam_debiasing(b1, b2)
    biased = chain(adam, optax.scale_by_schedule(lambda t: 1 / debiasing(t)))
    shadows = project_by_random(
        biased,
        rank=rank,
        every=every,
        scale=scale,
        growth=growth,
        eps=shadow_eps,
        floor=floor,
        key=key,
        batch_axes=batch_axes,
    )
    low_rank = chain(shadows, optax.scale_by_schedule(debiasing))
    return chain(
        split("apollo", hidden, batch_axes, low_rank, adam),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.coupled_decay(learning_rate, weight_decay), mask=mask),
    )
