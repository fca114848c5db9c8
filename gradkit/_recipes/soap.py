"""SOAP, as in its authors' code."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.matrix import layout
from gradkit._core.routing.hidden import seen
from gradkit._core.types import Hyper, Model, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.precondition.soap import precondition_by_soap


@factory
def soap(
    learning_rate: Rate = 3e-3,
    *,
    b1: Hyper = 0.95,
    b2: Hyper = 0.95,
    decay: Hyper = 0.95,
    eps: Hyper = 1e-8,
    every: int = 10,
    max_size: int = 10000,
    weight_decay: Hyper = 1e-2,
    mask: Mask = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
) -> Transform:
    """Adam in the eigenbasis of Shampoo's preconditioner, with weight decay.

    `precondition_by_soap` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        decay: of the EMA of the covariances.
        eps: added to the RMS before bias correction, in units of the gradient.
        every: update interval of the bases.
        max_size: a longer side keeps its own basis.
        learning_rate, b1, b2, weight_decay, mask, batch_axes, model: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `8*size + (8*((rows <= max_size)*rows**2 + (cols <= max_size)*cols**2)
        if ndim > 1 and min(rows, cols) > 1 else 8*(ndim > 1))` bytes a leaf, `12` once.
    Flops: at most `14*size*(rows + cols) + 6*(rows**3 + cols**3) + 50*size + 20*(rows**2
        + cols**2) + 90` a leaf, beside the orthonormalizations.
    Paper: Vyas and others, "SOAP: Improving and Stabilizing Shampoo using Adam",
        arXiv:2409.11321, Algorithms 3 and 4.
    Departure: a tensor is a matrix, not one side per axis, and rounding errors count as zero
        (`precondition_by_soap`). As in the authors' code, the first update changes nothing, and
        later ones decay the parameters after the step.
    Limits: the first update costs an eigendecomposition a side. Decays every leaf, gains and
        biases too, unless `mask` spares them. Bases cannot be differentiated.
    """
    check.nonnegative("soap", learning_rate=learning_rate)
    fraction = rate.lr_scaled_decay(learning_rate, weight_decay)

    def decayed(step: jax.Array) -> jax.Array:
        return jnp.where(step > 0, rate.at(fraction, step), 0)

    def left(step: Any) -> jax.Array:
        return 1 - decayed(step)

    def shortened(step: jax.Array) -> jax.Array:
        return rate.at(learning_rate, step) * left(step)

    if mask is None:
        steps = (step_by_learning_rate(shortened),)
    else:
        steps = (
            step_by_learning_rate(learning_rate),
            optax.masked(optax.scale_by_schedule(left), mask),
        )
    matrices = precondition_by_soap(
        b1,
        b2=b2,
        decay=decay,
        eps=rate.before_bias_correction(eps, b2),
        every=every,
        max_size=max_size,
        batch_axes=batch_axes,
    )
    return chain(
        seen("soap", matrices, batch_axes),
        *steps,
        decay_by_weight(0.0 if rate.is_zero(fraction) else decayed, mask=mask),
    )
