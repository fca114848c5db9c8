"""The linear scaling rule."""

from gradkit._core import check, rate
from gradkit._core.factory import factory
from gradkit._core.types import Rate, Scalar


@factory
def rate_by_linear_scaling(
    learning_rate: Rate = 0.1, *, batch_size: Scalar = 256, base: Scalar = 256
) -> Rate:
    r"""Multiply a learning rate of SGD by the ratio of batch sizes.

    $$\eta' = \eta \cdot \mathrm{batch\_size} / \mathrm{base}$$

    The mean path of so many smaller steps is kept.

    Args:
        learning_rate: the rate that is good at batch size `base`, a number or a schedule.
        batch_size: examples in a batch of the run.
        base: examples in a batch of the run for which the rate was found.

    Paper: Goyal and others, "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour",
        arXiv:1706.02677, Section 2.1.
    Departure: none.
    Limits: for SGD, and batches below the critical size; the paper warms up for 5 epochs. A
        schedule counts updates: shorten it for fewer updates.

    >>> print(gk.rate_by_linear_scaling(0.1, batch_size=1024, base=256))
    0.4
    """
    check.positive("rate_by_linear_scaling", batch_size=batch_size, base=base)
    return rate.product(learning_rate, batch_size / base)
