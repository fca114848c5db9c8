"""PSGD with Kronecker factors and gradient whitening."""

from gradkit._core import random, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.matrix import layout
from gradkit._core.routing.hidden import seen
from gradkit._core.types import Hyper, Model, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.precondition.psgd import annealed, precondition_by_psgd


@factory
def psgd(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    fit_rate: Rate = 0.1,
    fit_probability: Rate = annealed,
    decay: Hyper = 0.9,
    damping: Hyper = 1e-9,
    scale: Hyper = 1.0,
    max_rms: Hyper = 2.0,
    max_entry: Hyper = 10.0,
    max_size: int = 8192,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    key: random.Key = 0,
    batch_axes: layout.Axes = (),
    model: Model = None,
) -> Transform:
    """Momentum whitened by triangular Kronecker factors, which are fitted on a Lie group.

    `precondition_by_psgd` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        b1: decay of the EMA of the gradient, at most.
        fit_rate: step size of a fit, relative to the inverse of the curvature that it has
            measured.
        fit_probability: the probability of a fit; a number or a schedule.
        decay: of the EMA of the curvature, which is at least the newest.
        damping: noise added to the gradient fitted to, in its units.
        scale: multiplies the factors, which begin as identities; its square is the first gain.
        max_rms: the largest RMS of a matrix of directions.
        max_entry: the largest size of an entry of these.
        max_size: a longer side has a diagonal factor, as have vectors.
        learning_rate, weight_decay, mask, key, batch_axes, model: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `4*size + (4 + 8*rows*(rows if cols > 1 and rows <= max_size else 1))*(rows > 1)
        + (4 + 8*cols*(cols if rows > 1 and cols <= max_size else 1))*(cols > 1 or rows < 2)`
        bytes a leaf, `20` once.
    Flops: at most `10*size*(rows + cols) + 5*(rows**3 + cols**3) + 90*size + 60*(rows**2
        + cols**2) + 400` a leaf, `100` once, beside the triangular solves.
    Paper: Li, "Stochastic Hessian Fitting on Lie Group", arXiv:2402.11858.
    Departure: a tensor is a matrix, not one side per axis (`precondition_by_psgd`). The schedule
        of `fit_probability` is that of the JAX code by Walters; the author's code leaves it to
        the user. The author's code also differs in defaults: it has no momentum and no maximum
        size, makes a side diagonal whose square is larger than the leaf, and starts at the scale
        `mean(g^4)^(-1/8)` of the first gradient, where this starts at `scale`: of small
        gradients, first updates are small.
    Limits: a gradient far larger than all before stops fitting for some hundred updates. Decays
        every leaf, gains and biases too, unless `mask` spares them.
    """
    matrices = precondition_by_psgd(
        b1,
        fit_rate=fit_rate,
        fit_probability=fit_probability,
        decay=decay,
        damping=damping,
        scale=scale,
        max_rms=max_rms,
        max_entry=max_entry,
        max_size=max_size,
        key=key,
        batch_axes=batch_axes,
    )
    return chain(
        seen("psgd", matrices, batch_axes),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
