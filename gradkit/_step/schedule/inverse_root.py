"""Inverse square root of the count, after a warm-up."""

import jax
import jax.numpy as jnp

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.types import Scalar, Schedule


@factory
def schedule_by_inverse_root(peak: Scalar = 1.0, *, warmup: int = 4000) -> Schedule:
    r"""Rise linearly for `warmup` updates, then fall as the inverse square root of the count.

    $$\eta_c = \mathrm{peak} \cdot \min\left(\frac{t}{\mathrm{warmup}},
      \sqrt{\mathrm{warmup} / t}\right), \quad t = c + 1 = 1, 2, \dots$$

    Args:
        peak: the largest value, that of update number `warmup`.
        warmup: the number of updates that the rise takes.

    Paper: Vaswani and others, "Attention Is All You Need", arXiv:1706.03762, Equation 3.
    Departure: the paper's `peak` is `(d_model * warmup)**-0.5`.
    Limits: it never reaches zero. `gk.then` adds a cool-down at its end.

    >>> rate = gk.schedule_by_inverse_root(1.0, warmup=4)
    >>> print([float(rate(c)) for c in (0, 3, 15)])
    [0.25, 1.0, 0.5]
    """
    check.nonnegative("schedule_by_inverse_root", peak=peak)
    check.count("schedule_by_inverse_root", warmup=warmup)
    check.below("schedule_by_inverse_root", "2**31", 2**31, warmup=warmup)

    def schedule(step: jax.Array) -> jax.Array:
        t = jnp.maximum(jnp.asarray(step, jnp.result_type(float)) + 1, 0)
        later = jnp.maximum(t, warmup)
        return peak * jnp.minimum(t / warmup, 1) * jnp.sqrt(warmup / later)

    return schedule
