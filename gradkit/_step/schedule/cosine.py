"""Half a cosine, after a warm-up."""

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.schedules import warmup_cosine
from gradkit._core.types import Scalar, Schedule


@factory
def schedule_by_cosine(
    peak: Scalar = 1.0, *, steps: int = 1000, warmup: int = 0, end: Scalar = 0.0
) -> Schedule:
    r"""Rise linearly for `warmup` updates, then move along half a cosine to `end` at `steps`.

    $$\eta_c = \begin{cases} \mathrm{peak} \, (c + 1) / \mathrm{warmup} & c < \mathrm{warmup} \\
      \mathrm{end} + (\mathrm{peak} - \mathrm{end}) (1 + \cos(\pi w_c)) / 2 & \text{else}
      \end{cases}, \quad
      w_c = \min\left(1, \frac{c - \mathrm{warmup}}{\mathrm{steps} - \mathrm{warmup}}\right)$$

    Args:
        peak: the value reached right after the warm-up, the largest if `end` is below.
        steps: the number of updates of the whole run.
        warmup: the number of updates that the rise takes, less than `steps`.
        end: the last value, which stays; not a fraction of `peak`. Above `peak` the half cosine
            rises, as a weight decay may.

    Paper: Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts",
        arXiv:1608.03983, Equation 5.
    Departure: the warm-up is added, and there is one cycle. `optax.warmup_cosine_decay_schedule`
        needs a peak that is not traced, and spends its first update at rate zero unless told.
    Limits: the length of the run must be known. Linear decay to zero matched or beat it in
        arXiv:2310.07831.

    >>> rate = gk.schedule_by_cosine(1.0, steps=6, warmup=2)
    >>> print([round(float(rate(c)), 2) for c in range(7)])
    [0.5, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    name = "schedule_by_cosine"
    check.nonnegative(name, peak=peak, warmup=warmup, end=end)
    check.count(name, steps=steps)
    check.below(name, "2**31", 2**31, steps=steps)
    check.concrete(name, warmup=warmup)
    want = f"warmup must be below steps = {steps}"
    check.holds(name, warmup < steps, want, warmup, "Warm up for less than the run.")
    return warmup_cosine(peak, steps, warmup, end)
