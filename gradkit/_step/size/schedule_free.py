"""Schedule-free: gradients at a point between the iterate and its running average."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import averages, check, numbers, rate, report, tree
from gradkit._core.averages import AverageState
from gradkit._core.factory import factory
from gradkit._core.mask import Mask, check_mask, decayed
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Hyper,
    Params,
    Rate,
    Transform,
    Updates,
    transform,
)


class ScheduleFreeState(NamedTuple):
    """State of `step_by_schedule_free`."""

    largest: jax.Array  # the largest learning rate so far, []
    total: jax.Array  # the sum of weights, over the last learning rate's part, []
    z: Params  # the iterate, like the parameters; 0 before the first update
    x: AverageState  # its weighted average, like the parameters
    inner: optax.OptState


@factory
def step_by_schedule_free(
    inner: AnyTransform,
    *,
    learning_rate: Rate = 2.5e-3,
    b1: Hyper = 0.9,
    power: Hyper = 0.0,
    lr_power: Hyper = 2.0,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    r"""Move an iterate by `inner`, and the parameters to a point between it and its average.

    $$z_t = z_{t-1} - \eta_t (\mathrm{inner}(g_t) + \mathrm{weight\_decay} \, p_{t-1}), \qquad
      x_t = x_{t-1} + \frac{w_t}{\sum_{i \le t} w_i} (z_t - x_{t-1})$$
    $$p_t = b_1 x_t + (1 - b_1) z_t, \qquad
      w_t = t^{\mathrm{power}} \left(\max_{i \le t} \eta_i\right)^{\mathrm{lr\_power}}$$

    where $\eta$ is `learning_rate`. Gradients are of the parameters $p$; what is to be evaluated
    is $x$, which is `gk.eval_params(state, params)` from the state of any chain.

    Args:
        inner: makes a direction of the gradient, without momentum, which `b1` is in place of.
        learning_rate: a number, or a schedule that warms up to one. It need not fall.
        b1: the fraction of the average in the parameters.
        power: later iterates weigh as this power of time.
        lr_power: iterates weigh as this power of the largest learning rate so far, so that
            those of a warm-up weigh less.
        weight_decay, mask: see the glossary.

    Needs: params, and what `inner` needs.
    State: `8*size` bytes a leaf, `12` once, and the state of `inner`.
    Flops: at most `20*size` a leaf, `60` once, and those of `inner`.
    Paper: Defazio, Yang, Mehta, Mishchenko, Khaled and Cutkosky, "The Road Less Scheduled",
        arXiv:2405.15682, Algorithm 1.
    Departure: `z_0` and `x_0` are the first `params` that `update` sees. `x` is kept, where the
        authors' code computes it from `p` and `z`: that saves `4*size` bytes a leaf, but in
        bfloat16 the average would have the rounding error of the parameters. A non-finite entry
        of a direction counts as zero.
    Limits: last in a chain. Parameters that other transforms move are put back. Statistics of
        batch normalization must be taken again at `x`. A learning rate that falls to zero
        averages twice. The state holds parameters: do not keep it in few bits by a `store_by_`.

    >>> tx, p = gk.step_by_schedule_free(optax.identity(), learning_rate=1.0), jnp.float32(0.0)
    >>> state = tx.init(p)
    >>> for _ in range(2): u, state = tx.update(jnp.float32(-1.0), state, p); p = p + u
    >>> print(gk.eval_params(state, p), round(float(p), 3))  # z went to 1 and to 2
    1.5 1.55
    """
    name = "step_by_schedule_free"
    check.nonnegative(
        name,
        learning_rate=learning_rate,
        power=power,
        lr_power=lr_power,
        weight_decay=weight_decay,
    )
    check.interval(name, "[0, 1]", b1=b1)
    check_mask(name, mask)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> ScheduleFreeState:
        zero = lambda: jnp.sum(tree.zero_per_leaf(params))
        average = AverageState(jnp.zeros([], jnp.int32), tree.zeros(params))
        states = tree.zeros(params), average, inner.init(numbers.wide(params))
        return ScheduleFreeState(zero(), zero(), *states)

    def update(
        updates: Updates,
        state: ScheduleFreeState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, ScheduleFreeState]:
        check.given(name, params)
        p = numbers.like(params, state.z)
        d, inner_state = inner.update(numbers.wide(updates), state.inner, p, **extra)
        start, count = state.x.count == 0, numbers.increment(state.x.count)
        first = lambda kept: jax.tree.map(lambda x, y: jnp.where(start, x, y), p, kept)
        now = jnp.asarray(rate.at(learning_rate, state.x.count), state.total.dtype)
        report.number("learning_rate", now)

        def step(z: jax.Array, d: jax.Array, p: jax.Array) -> jax.Array:
            return (z - now * (d + weight_decay * p)).astype(z.dtype)

        d = numbers.like(numbers.read(d), state.z)
        z = jax.tree.map(step, first(state.z), d, decayed(name, mask, p))

        largest = jnp.maximum(state.largest, now)
        is_above = largest > 0
        fallen = jnp.where(is_above, state.largest, 1) / jnp.where(is_above, largest, 1)
        weight = count.astype(largest.dtype) ** power
        total = (state.total * fallen**lr_power + weight).astype(largest.dtype)
        x = averages.toward(first(state.x.average), z, weight / total)

        def between(x: jax.Array, z: jax.Array, p: jax.Array) -> jax.Array:
            return (b1 * x + (1 - b1) * z - p).astype(p.dtype)

        u = numbers.like(jax.tree.map(between, x, z, p), updates)
        average = AverageState(count, x)
        return u, ScheduleFreeState(largest, total, z, average, inner_state)

    return transform(init, update)
