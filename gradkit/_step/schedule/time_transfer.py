"""The learning rate of a longer run, by how its critical batch size grows."""

from typing import NamedTuple

import jax.numpy as jnp

from gradkit._core import check, rate
from gradkit._core.factory import factory
from gradkit._core.types import Rate, Scalar


class TimeTransfer(NamedTuple):
    """How to train on more tokens than the learning rate was tuned on."""

    learning_rate: Rate  # a schedule if one was given, else a number
    factor: Scalar  # what the given learning rate is multiplied by
    critical: Scalar  # the critical batch size at the new number of tokens


@factory
def schedule_by_time_transfer(
    learning_rate: Rate = 1e-3,
    *,
    tokens: Scalar = 1e9,
    base_tokens: Scalar = 1e9,
    batch_size: Scalar = 256,
    base: Scalar = 256,
    critical: Scalar = 1024,
) -> TimeTransfer:
    r"""Move a learning rate that was tuned on few tokens to a run on more of them.

    $$\mathrm{factor} = \frac{f(\mathrm{batch\_size}, B_{\mathrm{crit}})}
      {f(\mathrm{base}, \mathrm{critical})}, \quad
      B_{\mathrm{crit}} = \mathrm{critical} \, \frac{\mathrm{tokens}}{\mathrm{base\_tokens}}, \quad
      f(B, C) = \frac{2}{\sqrt{B / C} + \sqrt{C / B}}$$

    The best rate is largest where the batch size is the critical one, which grows in proportion to
    the tokens of the run. At a fixed batch size it then rises as the root of the tokens while the
    batch is above critical, stays as it passes it, and falls as one over the root below.

    Args:
        learning_rate: the rate that is good on `base_tokens` tokens, a number or a schedule.
        tokens: the number of tokens, or of other examples, of the run.
        base_tokens: of the run for which the rate was found.
        batch_size: examples in a batch of the run, in the units of `critical`.
        base: examples in a batch of the run for which the rate was found.
        critical: the critical batch size on `base_tokens`: where the best rate is largest.

    Paper: Filatov, Ebert, Wang and Kesselheim, "Time Transfer: On Optimal Learning Rate and Batch
        Size In The Infinite Data Limit", arXiv:2410.05838.
    Departure: the paper measures the three regimes and the critical batch size. The curve between
        them is the one that arXiv:2405.14578 derives for Adam, and the same largest rate is taken
        at all numbers of tokens.
    Limits: for Adam and methods like it, at one model size, or at several under muP. A batch that
        grows with its critical size keeps its rate. A schedule counts updates: make it as long as
        the run.

    >>> at = lambda n, b: gk.schedule_by_time_transfer(1.0, tokens=n * 1e9, batch_size=b, base=b)
    >>> print([round(float(at(100, b).factor), 2) for b in (1, 10240, 10**9)])
    [0.1, 1.0, 10.0]
    """
    check.positive(
        "schedule_by_time_transfer",
        tokens=tokens,
        base_tokens=base_tokens,
        batch_size=batch_size,
        base=base,
        critical=critical,
    )
    now = critical * (tokens / base_tokens)
    factor = _fraction(batch_size / now) / _fraction(base / critical)
    return TimeTransfer(rate.product(learning_rate, factor), factor, now)


def _fraction(ratio: Scalar) -> Scalar:
    """The best rate as a fraction of the largest one, by the ratio of batch and critical size."""
    root = jnp.sqrt(ratio)
    return 2 / (root + 1 / root)
