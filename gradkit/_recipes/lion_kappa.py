"""Lion-kappa, with decoupled weight decay."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradkit._core import rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.momentum.lion_kappa import average_by_lion_kappa


@factory
def lion_kappa(
    learning_rate: Rate = 1e-4,
    *,
    kappa: Callable[[jax.Array], jax.Array] = jnp.sign,
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """Lion with the subgradient of any convex function in place of the sign.

    `average_by_lion_kappa` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        kappa: a function of one leaf, the subgradient of a convex function of it.
        b1: weight of the momentum in the interpolation that `kappa` sees.
        b2: decay of the momentum, an EMA of the gradient.
        learning_rate, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `4*size` bytes a leaf, `8` once.
    Flops: at most `26*size` a leaf, and what `kappa` takes.
    Paper: Chen, Liu, Liang and Liu, "Lion Secretly Solves Constrained Optimization: As Lyapunov
        Predicts", arXiv:2310.05898, Lion-kappa.
    Departure: norms inside `kappa` are of one leaf, not of the model (`average_by_lion_kappa`).
    Limits: with weight decay the loss is minimized under a constraint or a penalty; under
        `jnp.sign`, in a box of half-width `1 / weight_decay`. Name `kappa` in the
        `static_args` of `optax.inject_hyperparams`, which takes functions for schedules.
    """
    return chain(
        average_by_lion_kappa(kappa, b1=b1, b2=b2),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
