"""Shampoo for hidden matrices, Adam for everything else."""

import optax

from gradkit._core import check, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.matrix import layout
from gradkit._core.routing.hidden import Hidden, split
from gradkit._core.types import Hyper, Model, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.precondition.shampoo import precondition_by_shampoo


@factory
def shampoo(
    learning_rate: Rate = 0.02,
    *,
    b1: Hyper = 0.9,
    decay: Hyper = 0.99,
    damping: Hyper = 1e-6,
    every: int = 10,
    max_size: int = 8192,
    adam_ratio: Hyper = 0.015,
    b2: Hyper = 0.99,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    hidden: Hidden = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
) -> Transform:
    """Average gradients between fourth roots of their covariances, for hidden matrices.

    hidden matrices: `precondition_by_shampoo`; all others: `adam_ratio` times `scale_by_adam`;
    then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        learning_rate: a number or a schedule; moves both parts. For matrices, the spectral norm
            of an update: about this, and at most 2.3 times the eighth root of the shorter side.
        b1: decay of the average gradient, in both parts.
        decay: decay of the average covariances.
        damping: added to their eigenvalues, as a share of the mean.
        every: updates between two times that roots are taken, after those at 1, 2, 4, 8 ...
        max_size: a longer side is left as it is.
        adam_ratio: Adam's learning rate, as a share of the matrices'.
        b2: decay of Adam's average squared gradient.
        eps: added to the root of Adam's average square, in units of the gradient.
        weight_decay: times the learning rate, the share of each parameter lost in one update.
        mask: which parameters decay: a tree of bools like them, or what makes one of them; `None`
            for all.
        hidden: which leaves are hidden matrices: a regular expression for their paths, a
            predicate of path and leaf, or a dict of paths and bools, which leaves all other
            paths to the default: names and shapes decide. `gradkit.routes` shows how.
        batch_axes: axes that number matrices in every hidden leaf, such as `(0,)` for
            scanned layers.
        model: what `gradkit.read_model` read: it says in place of `hidden` and `batch_axes` which
            leaves are hidden matrices, and which matrices they hold.

    Needs: params, unless `weight_decay` is 0.
    State: `(4*size + 8*((rows <= max_size)*rows**2 + (cols <= max_size)*cols**2
        if min(rows, cols) > 1 else 1) if ndim > 1 else 8*size)` bytes a leaf, `16` once.
    Flops: at most `4*size*(rows + cols) + 2*size*min(rows, cols) + 5*(rows**3 + cols**3)
        + 70*size + 30*(rows**2 + cols**2) + 130` a leaf, `60` once, beside the
        eigendecompositions.
    Paper: Gupta, Koren and Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization",
        arXiv:1802.09568, Algorithm 1; averages as in Anil and others, arXiv:2002.09018.
    Departure: that of `precondition_by_shampoo`. Steps have Shampoo's own length, where releases
        may take it from another method (grafting). Vectors go to Adam.
    Limits: names decide what is hidden, and linen's last `Dense_i` is named as any other: look
        at `gradkit.routes`, or set `hidden`. Early steps are as
        long as later ones: warm the learning rate up. See `precondition_by_shampoo`.
    """
    check.nonnegative("shampoo", adam_ratio=adam_ratio)
    matrices = precondition_by_shampoo(
        b1,
        decay=decay,
        rows_power=0.25,
        cols_power=0.25,
        damping=damping,
        every=every,
        max_size=max_size,
        batch_axes=batch_axes,
    )
    adam = chain(scale_by_adam(b1, b2=b2, eps=eps), optax.scale(adam_ratio))
    return chain(
        split("shampoo", hidden, batch_axes, matrices, adam),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.coupled_decay(learning_rate, weight_decay), mask=mask),
    )
