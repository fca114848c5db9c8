"""Warm up, stay, cool down: a schedule whose length need not be known until its end."""

import jax
import jax.numpy as jnp

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.schedules import until
from gradkit._core.types import Hyper, Schedule


@factory
def schedule_by_warmup_stable_decay(
    peak: Hyper = 1.0, *, steps: int = 1000, warmup: int = 0, cooldown: int = 200
) -> Schedule:
    r"""Rise for `warmup` updates, stay at `peak`, fall linearly in the last `cooldown`.

    $$\eta_c = \mathrm{peak} \cdot \min\left(1, \frac{c + 1}{\mathrm{warmup}},
      \frac{\mathrm{steps} - c}{\mathrm{cooldown}}\right), \quad c = 0, 1, \dots$$

    Args:
        peak: the largest value, held from the end of the warm-up to the cool-down.
        steps: the number of updates of the whole run.
        warmup: the number of updates that the rise takes.
        cooldown: the number of updates that the fall takes; a fifth of `steps` is usual.
            `gk.bound_of_schedule` compares lengths, and transfers `peak` to other `steps`.

    Paper: Schaipp, Hägele, Taylor, Simsekli and Bach, "The Surprising Agreement Between Convex
        Optimization Theory and Learning-Rate Scheduling for Large Model Training",
        arXiv:2501.18965, Section 2.
    Departure: the warm-up is added.
    Limits: `warmup + cooldown` must not exceed `steps`. After `steps` it stays at zero.

    >>> rate = gk.schedule_by_warmup_stable_decay(1.0, steps=6, warmup=2, cooldown=2)
    >>> [float(rate(c)) for c in range(7)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.5, 0.0]
    """
    name = "schedule_by_warmup_stable_decay"
    check.nonnegative(name, peak=peak, warmup=warmup)
    check.count(name, steps=steps, cooldown=cooldown)
    check.below(name, "2**31", 2**31, steps=steps)
    check.concrete(name, warmup=warmup)
    want, both = f"warmup + cooldown must be at most steps = {steps}", warmup + cooldown
    check.holds(name, both <= steps, want, both, "Shorten one or lengthen the run.")

    def schedule(step: jax.Array) -> jax.Array:
        c = jnp.asarray(step, jnp.result_type(float))
        rise = (c + 1) / max(warmup, 1)
        fall = until(step, steps) / cooldown
        return peak * jnp.clip(jnp.minimum(rise, fall), 0, 1)

    return schedule
