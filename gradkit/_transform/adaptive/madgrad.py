"""MADGRAD: dual averaging under a cube root, followed at a distance."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, rate, report, tree
from gradkit._core.derivative import cube_root
from gradkit._core.factory import factory
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Rate,
    Transform,
    Updates,
    transform,
)


class MADGRADState(NamedTuple):
    """State of `scale_by_madgrad`."""

    count: jax.Array  # updates so far, int32 []
    total: Updates  # weighted sum of gradients, like the parameters
    squares: Updates  # weighted sum of squared gradients, like the parameters
    anchor: Updates  # the first parameters, 0 before the first update, like them


@factory
def scale_by_madgrad(
    learning_rate: Rate = 1e-2, *, momentum: Hyper = 0.9, eps: Hyper = 1e-6
) -> Transform:
    r"""Replace each gradient by a part of the way to where dual averaging would be.

    $$w_t = (\eta_{t-1} + \epsilon) \sqrt{t}, \qquad s_t = s_{t-1} + w_t g_t, \qquad
      v_t = v_{t-1} + w_t g_t^2$$
    $$z_t = p_0 - \frac{s_t}{\sqrt[3]{v_t} + \epsilon}, \qquad
      u_t = (1 - \mathrm{momentum}) (p_{t-1} - z_t)$$

    where $\eta$ is `learning_rate`.

    Args:
        learning_rate: weight of a gradient, before it grows with the root of time; a number
            or a schedule.
        momentum: the fraction of the way that is left; 0 is dual averaging itself.
        eps: added to the cube root and to the learning rate.

    Needs: params. The direction is the whole step, so its learning rate is 1, as the recipe
        `madgrad` has it.
    State: `12*size` bytes a leaf, `4` once.
    Flops: at most `32*size` a leaf.
    Paper: Defazio and Jelassi, "Adaptivity without Compromise: A Momentumized, Adaptive, Dual
        Averaged Gradient Method for Stochastic Optimization", arXiv:2101.11075, Algorithm 1.
    Departure: as in the authors' code, `eps` is also added to the learning rate. `anchor` is the
        first `params` that `update` sees.
    Limits: bound to where training began: other changes of the parameters, weight decay too,
        are undone within `1 / (1 - momentum)` updates. Past gradients are never forgotten.

    >>> tx, p = gk.scale_by_madgrad(0.125, momentum=0.0, eps=0.0), jnp.float32(0.0)
    >>> u, _ = tx.update(jnp.float32(8.0), tx.init(p), p)
    >>> print(u.round(5))  # weight * gradient, over the cube root of weight * gradient^2
    0.5
    """
    name = "scale_by_madgrad"
    check.nonnegative(name, learning_rate=learning_rate, eps=eps)
    check.interval(name, "[0, 1)", momentum=momentum)

    def init(params: Params) -> MADGRADState:
        step = jnp.zeros([], jnp.int32)
        zeros = [tree.zeros(params) for _ in range(3)]
        return MADGRADState(step, *zeros)

    def update(
        updates: Updates, state: MADGRADState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, MADGRADState]:
        del extra
        check.given(name, params)
        g = numbers.like(numbers.read_squarable(updates), state.total)
        p = numbers.like(params, state.anchor)
        step = numbers.increment(state.count)
        now = rate.at(learning_rate, state.count)
        report.number("learning_rate", now)
        size = now + eps

        def gather(total: jax.Array, new: jax.Array) -> jax.Array:
            weight = size * jnp.sqrt(step.astype(new.dtype))
            # clipped before and not after: XLA would compute a clipped sum twice
            total, new = (numbers.summable(x, 1) for x in (total, weight * new))
            return (total + new).astype(new.dtype)

        def direction(
            p: jax.Array, p0: jax.Array, s: jax.Array, v: jax.Array
        ) -> jax.Array:
            root = cube_root(v) + eps
            return (1 - momentum) * (p - p0 + tree.ratio(s, root))

        anchor = jax.tree.map(
            lambda p, p0: jnp.where(step == 1, p, p0), p, state.anchor
        )
        total = jax.tree.map(gather, state.total, g)
        squares = jax.tree.map(gather, state.squares, jax.tree.map(jnp.square, g))
        u = jax.tree.map(direction, p, anchor, total, squares)
        return numbers.like(u, updates), MADGRADState(step, total, squares, anchor)

    return transform(init, update)
