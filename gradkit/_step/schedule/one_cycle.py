"""One cycle of the learning rate, and of the momentum against it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.types import Scalar, Schedule


class OneCycle(NamedTuple):
    """Two schedules that go together."""

    learning_rate: Schedule
    momentum: Schedule


@factory
def schedule_by_one_cycle(
    peak: Scalar = 1.0,
    *,
    steps: int = 1000,
    cycle: int = 900,
    start: Scalar = 0.1,
    end: Scalar = 0.001,
    slow: Scalar = 0.95,
    fast: Scalar = 0.85,
) -> OneCycle:
    r"""Raise the learning rate and lower the momentum in half a cycle, then turn both back.

    $$\eta_c = \mathrm{peak} \cdot \begin{cases}
      \mathrm{start} + (1 - \mathrm{start}) w_c & c \le \mathrm{cycle} \\
      \mathrm{start} + (\mathrm{end} - \mathrm{start}) v_c & \text{else} \end{cases}, \quad
      b_c = \mathrm{slow} + (\mathrm{fast} - \mathrm{slow}) w_c$$

    $$w_c = \max(0, 1 - |2 c / \mathrm{cycle} - 1|), \quad
      v_c = \min\left(1, \frac{c - \mathrm{cycle}}{\mathrm{steps} - \mathrm{cycle}}\right),
      \quad c = 0, 1, \dots$$

    It returns a pair, to be given as
    `gk.sgd(cycle.learning_rate, momentum=cycle.momentum)`, or for `b1` of Adam.

    Args:
        peak: the largest rate, in the middle of the cycle: `gk.find_learning_rate` proposes one.
        steps: the number of updates of the whole run.
        cycle: the number of updates of the cycle, less than `steps`; in the rest the rate falls
            further.
        start: the rate at both ends of the cycle, as a fraction of `peak`.
        end: the rate at the end of the run, as a fraction of `peak`. Above `start` the rate rises in
            the rest.
        slow: the momentum at both ends of the cycle, and after it.
        fast: the momentum in the middle of the cycle.

    Paper: Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large
        Learning Rates", arXiv:1708.07120; the momentum is of Smith, arXiv:1803.09820.
    Departure: the papers give ranges for `cycle`, `start` and `end`; these lie within.
    Limits: the length of the run must be known. `optax.cosine_onecycle_schedule` and
        `optax.linear_onecycle_schedule` are other forms, of the rate alone.

    >>> rate, momentum = gk.schedule_by_one_cycle(1.0, steps=6, cycle=4, start=0.5, end=0.1)
    >>> print([round(float(rate(c)), 2) for c in range(7)])
    [0.5, 0.75, 1.0, 0.75, 0.5, 0.3, 0.1]
    >>> print([round(float(momentum(c)), 2) for c in range(7)])
    [0.95, 0.9, 0.85, 0.9, 0.95, 0.95, 0.95]
    """
    name = "schedule_by_one_cycle"
    check.nonnegative(name, peak=peak)
    check.count(name, steps=steps, cycle=cycle)
    check.below(name, "2**31", 2**31, steps=steps)
    check.interval(name, "[0, 1]", start=start, end=end)
    check.interval(name, "[0, 1)", slow=slow, fast=fast)
    want = f"cycle must be below steps = {steps}"
    check.holds(name, cycle < steps, want, cycle, "Leave updates for the last fall.")

    def within(c: jax.Array) -> jax.Array:
        return jnp.clip(1 - jnp.abs(2 * c / cycle - 1), 0, 1)

    def learning_rate(step: jax.Array) -> jax.Array:
        c = jnp.asarray(step, jnp.result_type(float))
        w, v = within(c), jnp.clip((c - cycle) / (steps - cycle), 0, 1)
        return peak * (start + (1 - start) * w + (end - start) * v)

    def momentum(step: jax.Array) -> jax.Array:
        w = within(jnp.asarray(step, jnp.result_type(float)))
        return slow + (fast - slow) * w

    return OneCycle(learning_rate, momentum)
