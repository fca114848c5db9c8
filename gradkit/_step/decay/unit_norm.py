"""Norm loss: weights of each unit, drawn to norm one."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, rate
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Params, Rate, Transform, Updates, transform


class UnitNormState(NamedTuple):
    """State of `decay_by_unit_norm`."""

    count: jax.Array  # updates so far, int32 []


@factory
def decay_by_unit_norm(weight_decay: Rate = 1e-2) -> Transform:
    r"""Take from each update what draws the weights of every unit to norm one.

    $$u_t = \Delta_t - 2 \, \mathrm{weight\_decay}_{t-1} \left(1 - \frac{1}{\lVert w
      \rVert}\right) w$$

    for each $w$, the weights `[..., i]` of unit $i$: the gradient of
    $\mathrm{weight\_decay} \, (1 - \lVert w \rVert)^2$.

    Args:
        weight_decay: half the fraction of its distance to one that a norm loses in one update; a
            number or a schedule.

    Needs: params, unless `weight_decay` is 0. Stands after `step_by_learning_rate`, where the sign has turned.
    State: `0` bytes a leaf, `4` once.
    Flops: at most `24*size` a leaf, `4` once.
    Paper: Georgiou, Schmitt, Bäck, Chen and Lew, "Preprint: Norm Loss: An efficient yet
        effective regularization method for deep neural networks", arXiv:2103.06583.
    Departure: the paper adds the loss to that of the data; here it passes through neither the
        learning rate nor EMAs. To follow the paper under SGD, pass the learning rate times its
        factor.
    Limits: leaves of fewer than two axes pass as they are, as do weights that are all zero. A
        stack `[layers, in, out]` has one norm for all layers of a unit.

    >>> tx = gk.decay_by_unit_norm(0.25)
    >>> p = jnp.array([[3.0], [4.0]])  # half way from norm 5 to norm 1
    >>> u, _ = tx.update(0 * p, tx.init(p), p)
    >>> [round(float(x), 3) for x in (p + u).ravel()]
    [1.8, 2.4]
    """
    check.nonnegative("decay_by_unit_norm", weight_decay=weight_decay)

    def init(params: Params) -> UnitNormState:
        del params
        return UnitNormState(jnp.zeros([], jnp.int32))

    def update(
        updates: Updates, state: UnitNormState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, UnitNormState]:
        del extra
        count = numbers.increment(state.count)
        if rate.is_zero(weight_decay):
            return updates, UnitNormState(count)
        check.given("decay_by_unit_norm", params)
        fraction = rate.at(weight_decay, state.count)

        def draw(u: jax.Array, p: jax.Array) -> jax.Array:
            if u.ndim < 2:
                return u
            w = p.astype(u.dtype)
            norm = norms.along(w, tuple(range(w.ndim - 1)))
            unit = w / jnp.where(norm > 0, numbers.divisible(norm), 1)
            return (u - 2 * fraction * (w - unit)).astype(u.dtype)

        u = jax.tree.map(draw, numbers.wide(updates), params)
        return numbers.like(u, updates), UnitNormState(count)

    return transform(init, update)
