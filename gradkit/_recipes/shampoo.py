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
    adam_lr_ratio: Hyper = 0.015,
    b2: Hyper = 0.99,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    hidden: Hidden = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
) -> Transform:
    """EMA of gradients between inverse fourth roots of their Kronecker covariances; Adam for all else.

    hidden matrices: `precondition_by_shampoo`; all others: `adam_lr_ratio` times `scale_by_adam`;
    then `step_by_learning_rate` -> `decay_by_weight`

    Args:
        learning_rate: see the glossary. For matrices, the spectral norm of an update: about this,
            and at most 2.3 times the eighth root of the shorter side.
        b1: decay of the EMA of the gradient, in both parts.
        decay: of the EMA of the covariances.
        damping: added to their eigenvalues, as a fraction of the mean.
        every: update interval of the roots, after those at 1, 2, 4, 8 ...
        max_size: a longer side is left as it is.
        adam_lr_ratio, b2, eps, weight_decay, mask, hidden, batch_axes, model: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `(4*size + 8*((rows <= max_size)*rows**2 + (cols <= max_size)*cols**2
        if min(rows, cols) > 1 else 1) if ndim > 1 else 8*size)` bytes a leaf, `16` once.
    Flops: at most `4*size*(rows + cols) + 2*size*min(rows, cols) + 5*(rows**3 + cols**3)
        + 70*size + 30*(rows**2 + cols**2) + 130` a leaf, `60` once, beside the
        eigendecompositions.
    Paper: Gupta, Koren and Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization",
        arXiv:1802.09568, Algorithm 1; EMAs as in Anil and others, arXiv:2002.09018.
    Departure: EMAs in place of sums, and a limit on singular values (`precondition_by_shampoo`).
        Steps have Shampoo's own length; implementations may take it from another method
        (grafting, `graft`). Vectors go to Adam.
    Limits: an update that renews roots costs an eigendecomposition a side. Early steps are as
        long as later ones: warm the learning rate up.
    """
    check.nonnegative("shampoo", adam_lr_ratio=adam_lr_ratio)
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
    adam = chain(scale_by_adam(b1, b2=b2, eps=eps), optax.scale(adam_lr_ratio))
    return chain(
        split("shampoo", hidden, batch_axes, matrices, adam),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
