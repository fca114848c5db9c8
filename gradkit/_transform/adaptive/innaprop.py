"""INNAprop: inertial Newton dynamics on RMSprop's gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, rate, tree
from gradkit._core.derivative import root
from gradkit._core.factory import factory
from gradkit._core.mask import Mask, decayed
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Rate,
    Transform,
    Updates,
    transform,
)


class INNApropState(NamedTuple):
    """State of `scale_by_innaprop`."""

    count: jax.Array  # updates so far, int32 []
    psi: Updates  # the dynamics' second variable, in units of the parameters, like them
    nu: Updates  # EMA of the squared gradient, like the parameters


@factory
def scale_by_innaprop(
    learning_rate: Rate = 1e-3,
    *,
    alpha: Hyper = 0.1,
    beta: Hyper = 0.9,
    decay: Hyper = 0.999,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.01,
    mask: Mask = None,
) -> Transform:
    r"""Replace each gradient by a step of inertial dynamics that feel the curvature.

    $$v_t = \mathrm{decay} \, v_{t-1} + (1 - \mathrm{decay}) g_t^2, \qquad
      p' = (1 - \eta \lambda) p_{t-1}$$
    $$\psi_t = (1 - \eta / \beta) \psi_{t-1} + \eta (1 / \beta - \alpha) p', \qquad
      \psi_0 = (1 - \alpha \beta) p_0$$
    $$u_t = \lambda p_{t-1} + \frac{\psi_t - (1 - \alpha \beta) p'}{\beta - \eta}
      + \frac{\beta g_t}{\sqrt{v_t / (1 - \mathrm{decay}^t)} + \epsilon}$$

    where $\eta$ is `learning_rate` and $\lambda$ is `weight_decay`.

    Args:
        learning_rate: that of the `step_by_learning_rate` to follow; a number or a schedule.
        alpha: friction of the dynamics, `alpha * beta = 1` is RMSprop.
        beta: weight of the curvature, above `learning_rate`.
        decay: of the EMA of the squared gradient.
        eps: added to the root, in units of the gradient.
        weight_decay, mask: see the glossary.

    Needs: params, and the same learning rate in the step, as the recipe `innaprop` has it.
    State: `8*size` bytes a leaf, `4` once.
    Flops: at most `34*size` a leaf.
    Paper: Bolte, Boustany, Pauwels and Purica, "A second-order-like optimizer with adaptive
        gradient scaling for deep learning", arXiv:2410.05871, Algorithm 1.
    Departure: the paper's new parameters are `params - learning_rate * u`. `psi` takes its
        start from the first `params` that `update` sees.
    Limits: singular where `learning_rate` reaches `beta`, also in the middle of a schedule.

    >>> tx = gk.scale_by_innaprop(alpha=1.0, beta=1.0, weight_decay=0.0)  # RMSprop
    >>> p = jnp.array([3.0, 5.0])
    >>> print(tx.update(jnp.array([0.1, -0.2]), tx.init(p), p)[0].round(3))
    [ 1. -1.]
    """
    name = "scale_by_innaprop"
    check.nonnegative(name, learning_rate=learning_rate, alpha=alpha)
    check.nonnegative(name, eps=eps, weight_decay=weight_decay)
    check.positive(name, beta=beta)
    check.interval(name, "[0, 1)", decay=decay)
    check.below(name, "beta", beta, learning_rate=learning_rate)

    def init(params: Params) -> INNApropState:
        step = jnp.zeros([], jnp.int32)
        return INNApropState(step, tree.zeros(params), tree.zeros(params))

    def update(
        updates: Updates, state: INNApropState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, INNApropState]:
        del extra
        check.given(name, params)
        g = numbers.read_squarable(updates)
        p = numbers.like(params, state.psi)
        step = numbers.increment(state.count)
        nu = tree.ema_of_squares(decay, state.nu, g)
        lr = rate.at(learning_rate, state.count)
        fading = decayed(name, mask, p)
        shrunk = jax.tree.map(lambda p, x: p - lr * weight_decay * x, p, fading)

        def inertia(s: jax.Array, p: jax.Array, shrunk: jax.Array) -> jax.Array:
            s = jnp.where(step == 1, (1 - alpha * beta) * p, s)
            s = (1 - lr / beta) * s + lr * (1 / beta - alpha) * shrunk
            return s.astype(p.dtype)

        psi = jax.tree.map(inertia, state.psi, p, shrunk)

        def direction(
            s: jax.Array,
            v: jax.Array,
            g: jax.Array,
            fading: jax.Array,
            shrunk: jax.Array,
        ) -> jax.Array:
            pull = (s - (1 - alpha * beta) * shrunk) / (beta - lr)
            newton = tree.ratio(beta * g.astype(v.dtype), root(v) + eps)
            return weight_decay * fading + pull + newton

        u = jax.tree.map(
            direction, psi, tree.bias_corrected(nu, decay, step), g, fading, shrunk
        )
        return numbers.like(u, updates), INNApropState(step, psi, nu)

    return transform(init, update)
