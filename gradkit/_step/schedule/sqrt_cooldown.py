"""Warm up, stay, cool down by 1 - sqrt."""

import jax
import jax.numpy as jnp

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.schedules import until
from gradkit._core.types import Scalar, Schedule


@factory
def schedule_by_sqrt_cooldown(
    peak: Scalar = 1.0, *, steps: int = 1000, warmup: int = 0, cooldown: int = 200
) -> Schedule:
    r"""Rise for `warmup` updates, stay at `peak`, fall as 1 - sqrt in the last `cooldown`.

    $$\eta_c = \mathrm{peak} \cdot \min\left(\frac{c + 1}{\mathrm{warmup}},
      1 - \sqrt{w_c}\right), \quad
      w_c = \max\left(0, \frac{c - \mathrm{steps} + \mathrm{cooldown}}{\mathrm{cooldown}}\right),
      \quad c = 0, 1, \dots$$

    Args:
        peak: the largest value, held from the end of the warm-up to the cool-down.
        steps: the number of updates of the whole run.
        warmup: the number of updates that the rise takes.
        cooldown: the number of updates that the fall takes; a fifth of `steps` is usual.

    Paper: Hägele, Bakouch, Kosson, Ben Allal, von Werra and Jaggi, "Scaling Laws and
        Compute-Optimal Training Beyond Fixed Training Durations", arXiv:2405.18392.
    Departure: none.
    Limits: `warmup + cooldown` must not exceed `steps`. After `steps` it stays at zero.

    >>> rate = gk.schedule_by_sqrt_cooldown(1.0, steps=6, warmup=2, cooldown=4)
    >>> print([round(float(rate(c)), 2) for c in range(7)])
    [0.5, 1.0, 1.0, 0.5, 0.29, 0.13, 0.0]
    """
    name = "schedule_by_sqrt_cooldown"
    check.nonnegative(name, peak=peak, warmup=warmup)
    check.count(name, steps=steps, cooldown=cooldown)
    check.below(name, "2**31", 2**31, steps=steps)
    check.concrete(name, warmup=warmup)
    want, both = f"warmup + cooldown must be at most steps = {steps}", warmup + cooldown
    check.holds(name, both <= steps, want, both, "Shorten one or lengthen the run.")

    def schedule(step: jax.Array) -> jax.Array:
        c = jnp.asarray(step, jnp.result_type(float))
        rise = (c + 1) / max(warmup, 1)
        since = jnp.maximum(-until(step, steps - cooldown), 0)
        fall = 1 - jnp.sqrt(since / cooldown)
        return peak * jnp.clip(jnp.minimum(rise, fall), 0, 1)

    return schedule
