"""The square root scaling rule."""

from gradkit._core import check, rate
from gradkit._core.factory import factory
from gradkit._core.types import Rate, Scalar


@factory
def rate_by_sqrt_scaling(
    learning_rate: Rate = 1e-3, *, batch_size: Scalar = 256, base: Scalar = 256
) -> Rate:
    r"""Multiply a learning rate by the square root of the ratio of batch sizes.

    $$\eta' = \eta \sqrt{\mathrm{batch\_size} / \mathrm{base}}$$

    The covariance of an update is kept.

    Args:
        learning_rate: the rate that is good at batch size `base`, a number or a schedule.
        batch_size: examples in a batch of the run.
        base: examples in a batch of the run for which the rate was found.

    Paper: Hoffer, Hubara and Soudry, "Train longer, generalize better", arXiv:1705.08741;
        Granziol, Zohren and Roberts, arXiv:2006.09092, derive it for Adam.
    Departure: none. The paper's regime adaptation, as many updates at every batch size, is
        that of any schedule here, which counts updates and not epochs.
    Limits: a rule for Adam and its like. Those that follow signs have a best rate that may fall
        again at large batches (arXiv:2405.14578).

    >>> print(gk.rate_by_sqrt_scaling(0.1, batch_size=1024, base=256))
    0.2
    """
    check.positive("rate_by_sqrt_scaling", batch_size=batch_size, base=base)
    return rate.product(learning_rate, (batch_size / base) ** 0.5)
