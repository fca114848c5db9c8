"""Linear decay to zero, the schedule that is worst-case optimal for the last iterate."""

from gradkit._core import check, schedules
from gradkit._core.factory import factory
from gradkit._core.types import Hyper, Schedule


@factory
def schedule_by_linear_decay(
    peak: Hyper = 1.0, *, steps: int = 1000, warmup: int = 0
) -> Schedule:
    r"""Rise linearly for `warmup` updates, then fall linearly to zero at `steps`.

    $$\eta_c = \mathrm{peak} \cdot \min\left(\frac{c + 1}{\mathrm{warmup}},
      \frac{\mathrm{steps} - c}{\mathrm{steps} - \mathrm{warmup}}\right), \quad c = 0, 1, \dots$$

    Args:
        peak: the largest value, reached right after the warm-up.
        steps: the number of updates of the whole run.
        warmup: the number of updates that the rise takes, less than `steps`.

    Paper: Defazio, Cutkosky, Mehta and Mishchenko, "When, Why and How Much? Adaptive Learning
        Rate Scheduling by Refinement", arXiv:2310.07831, Corollary 2.
    Departure: the warm-up is added; the refined schedules, `schedule_by_refinement`, have one of
        their own. The paper's last update has rate 0, here it is the one after.
    Limits: the length of the run must be known. After `steps` it stays at zero.

    >>> rate = gk.schedule_by_linear_decay(1.0, steps=4)
    >>> [float(rate(c)) for c in range(5)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    name = "schedule_by_linear_decay"
    check.nonnegative(name, peak=peak, warmup=warmup)
    check.count(name, steps=steps)
    check.below(name, "2**31", 2**31, steps=steps)
    check.concrete(name, warmup=warmup)
    want = f"warmup must be below steps = {steps}"
    check.holds(name, warmup < steps, want, warmup, "Warm up for less than the run.")
    return schedules.warmup_linear(peak, steps, warmup)
