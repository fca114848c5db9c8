"""AdEMAMix's schedule: a decay whose half-life grows linearly."""

import math

import jax
import jax.numpy as jnp

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.types import Schedule


@factory
def schedule_by_half_life(
    start: float = 0.9, *, end: float = 0.9999, steps: int = 1000
) -> Schedule:
    r"""Move a decay from `start` to `end` so that its half-life changes linearly.

    $$b_t = \exp\left(\frac{\ln \mathrm{start} \, \ln \mathrm{end}}
      {(1 - w) \ln \mathrm{end} + w \ln \mathrm{start}}\right), \quad
      w = \min(t / \mathrm{steps}, 1), \quad t = 1, 2, \dots$$

    Args:
        start: the decay before the first update.
        end: the decay from update number `steps` on. Below `start` the decay falls.
        steps: the number of updates that the change takes; the paper takes the whole run.

    Paper: Pagliardini, Ablin and Grangier, "The AdEMAMix Optimizer: Better, Faster, Older",
        arXiv:2409.03137, Section 3.
    Departure: the authors' code adds 1e-8 inside its logarithms, which changes the parameters by
        2e-6 of their size after 40 steps at `end=0.999`.
    Limits: in float32, 1 minus a decay of 0.9999 is off by 0.02 %.

    >>> decay = gk.schedule_by_half_life(0.5, end=0.5**0.5, steps=4)  # half-life 1 to 2
    >>> print([round(float(-jnp.log(2.0) / jnp.log(decay(c))), 2) for c in range(4)])
    [1.25, 1.5, 1.75, 2.0]
    """
    check.interval("schedule_by_half_life", "(0, 1)", start=start, end=end)
    check.count("schedule_by_half_life", steps=steps)
    check.below("schedule_by_half_life", "2**31", 2**31, steps=steps)
    first, last = math.log(start), math.log(end)

    def schedule(step: jax.Array) -> jax.Array:
        t = jnp.maximum(jnp.asarray(step, jnp.result_type(float)) + 1, 0)
        w = jnp.minimum(t / steps, 1)
        return jnp.exp(first * last / ((1 - w) * last + w * first))

    return schedule
