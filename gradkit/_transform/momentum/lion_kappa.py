"""Lion-kappa: Lion with the subgradient of any convex function for the sign."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class LionKappaState(NamedTuple):
    """State of `average_by_lion_kappa`."""

    mu: Updates  # EMA of the gradient with decay b2, like the parameters


@factory
def average_by_lion_kappa(
    kappa: Callable[[jax.Array], jax.Array] = jnp.sign,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.99,
) -> Transform:
    r"""Replace each gradient by `kappa` of its interpolation with the momentum.

    $$u_t = \mathrm{kappa}(b_1 m_{t-1} + (1 - b_1) g_t), \qquad
      m_t = b_2 m_{t-1} + (1 - b_2) g_t$$

    Args:
        kappa: a function of one leaf, the subgradient of a convex function of it: `jnp.sign`
            for the sum of absolute values, `x / norm(x)` for the Euclidean norm, `clip` for
            Huber's loss.
        b1: weight of the momentum in the interpolation.
        b2: decay of the momentum, an EMA of the gradient.

    State: `4*size` bytes a leaf, `0` once.
    Flops: at most `15*size` a leaf, and what `kappa` takes.
    Paper: Chen, Liu, Liang and Liu, "Lion Secretly Solves Constrained Optimization: As Lyapunov
        Predicts", arXiv:2310.05898, Lion-kappa.
    Departure: `kappa` sees the momentum, where the paper's sees its negative: the same for every
        even function. The paper's norms are of the whole model; here they are of one leaf.
    Limits: with weight decay, parameters are drawn to where the convex conjugate of the function
        at `weight_decay * p` is finite. `kappa` of zeros must be finite. Name `kappa` in the
        `static_args` of `optax.inject_hyperparams`, which takes functions for schedules.

    >>> tx = gk.average_by_lion_kappa(lambda x: jnp.clip(x / 0.5, -1, 1))  # of Huber's loss
    >>> u, _ = tx.update(jnp.array([1.0, -60.0, 0.0]), tx.init(jnp.zeros(3)))
    >>> print(u.round(3))
    [ 0.2 -1.   0. ]
    """
    check.interval("average_by_lion_kappa", "[0, 1)", b1=b1, b2=b2)

    def init(params: Params) -> LionKappaState:
        return LionKappaState(tree.zeros(params))

    def update(
        updates: Updates, state: LionKappaState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, LionKappaState]:
        del params, extra
        g = numbers.read(updates)
        mu = tree.ema(b2, state.mu, g)
        u = jax.tree.map(kappa, tree.ema_before(b1, b2, state.mu, mu, g))
        return numbers.like(u, updates), LionKappaState(mu)

    return transform(init, update)
