"""SANIA with Adam-SQR: Polyak's step of second order in a metric that no scale changes."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, polyak, rate, report, tree
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


class SANIAAdamState(NamedTuple):
    """State of `step_by_sania_adam`."""

    count: jax.Array  # updates so far, int32 []
    nu: Updates  # EMA of squared gradients, like the parameters


@factory
def step_by_sania_adam(
    learning_rate: Rate = 1.0,
    *,
    b2: Hyper = 0.999,
    eps: Hyper = 0.1,
    lower_bound: Hyper = 0.0,
) -> Transform:
    r"""Step to where a model of the loss, in the metric of averaged squares, meets its bound.

    $$v_t = b_2 v_{t-1} + (1 - b_2)\, g_t^2, \qquad D_t = \max(v_t / (1 - b_2^t), \epsilon)$$
    $$u_t = -\mathrm{learning\_rate} \, \lambda_t \frac{g_t}{D_t}, \qquad
      \lambda_t = 1 - \sqrt{1 - \min(x_t, 1)}, \qquad
      x_t = \frac{2 \max(\mathrm{value}_t - \mathrm{lower\_bound}, 0)}{\langle g_t, g_t / D_t \rangle}$$

    The model is $\mathrm{value} + \langle g, s \rangle + \langle s, D s \rangle / 2$ of a step
    $s$; where it stays above the bound, $\lambda = 1$ is the step to its least point.

    Args:
        learning_rate: multiplies the step, 1 in the paper; a number or a schedule.
        b2: see the glossary.
        eps: the least metric, in units of the squared gradient.
        lower_bound: a number that the loss of no batch falls below, of either sign.

    Needs: `value`, the loss of the batch of the gradient.
    State: `4*size` bytes a leaf, `4` once.
    Flops: at most `24*size + 40` a leaf, `60` once.
    Paper: Abdukhakimov, Xiang, Kamzolov, Gower and Takáč, "SANIA: Polyak-type Optimization
        Framework Leads to Scale Invariant Stochastic Algorithms", arXiv:2312.17369, Adam-SQR.
    Departure: `eps` is a floor, as in the authors' code. A non-finite entry of a gradient counts
        as zero. There is no step if the loss is not finite.
    Limits: scale-invariant only where squared gradients exceed `eps`. Without it an entry whose
        gradients are small has a long step, however little it matters. Entries of a gradient above
        9e18 in float32, whose squares would not stay finite, count as that. In groups of
        `optax.partition` the step is that of the group.

    >>> tx = gk.step_by_sania_adam(eps=0.0)
    >>> for c in (1.0, 1e4):  # of a parameter in other units, c of the old in one of the new
    ...     g = jnp.array([2.0, 0.5 * c])
    ...     u, _ = tx.update(g, tx.init(g), value=jnp.float32(0.5))
    ...     print([f"{x:.3f}" for x in (u[0], c * u[1])])
    ['-0.146', '-0.586']
    ['-0.146', '-0.586']
    """
    name = "step_by_sania_adam"
    check.nonnegative(name, learning_rate=learning_rate, eps=eps)
    check.above(name, -math.inf, lower_bound=lower_bound)
    check.interval(name, "[0, 1)", b2=b2)

    def init(params: Params) -> SANIAAdamState:
        return SANIAAdamState(jnp.zeros([], jnp.int32), tree.zeros(params))

    def update(
        updates: Updates,
        state: SANIAAdamState,
        params: Params = None,
        *,
        value: jax.Array | None = None,
        **extra: Extra,
    ) -> tuple[Updates, SANIAAdamState]:
        del params, extra
        check.loss(name, value)
        g = numbers.like(numbers.read_squarable(updates), state.nu)
        count = numbers.increment(state.count)
        nu = tree.ema_of_squares(b2, state.nu, g)
        metric = tree.bias_corrected(nu, b2, count)

        direction, part = polyak.quadratic(g, metric, eps, value, lower_bound)
        report.number("learning_rate", part)
        size = rate.at(learning_rate, state.count) * part
        u = numbers.like(tree.scale(-size, direction), updates)
        return u, SANIAAdamState(count, nu)

    return transform(init, update)
