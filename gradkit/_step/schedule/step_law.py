"""Learning rate and batch size of a language model by its size and its data."""

import math
from typing import NamedTuple

import jax.numpy as jnp

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.schedules import warmup_cosine
from gradkit._core.types import Scalar, Schedule


class StepLaw(NamedTuple):
    """How to pre-train a language model of one size on so many tokens."""

    learning_rate: Schedule
    peak: float  # the largest learning rate
    batch_tokens: float  # tokens of one batch, not rounded
    steps: int  # updates that the tokens are enough for


@factory
def schedule_by_step_law(
    parameters: float = 1e9,
    *,
    tokens: float = 1e11,
    warmup: int = 2000,
    end: Scalar = 1e-5,
) -> StepLaw:
    r"""Choose learning rate, batch size and steps of AdamW for a language model and its tokens.

    $$\mathrm{peak} = 1.79 \, \mathrm{parameters}^{-0.713} \, \mathrm{tokens}^{0.307}, \quad
      \mathrm{batch} = 0.58 \, \mathrm{tokens}^{0.571}, \quad
      \mathrm{steps} = \lfloor \mathrm{tokens} / \mathrm{batch} \rfloor$$

    $$\eta_c = \begin{cases} \mathrm{peak} \, (c + 1) / \mathrm{warmup} & c < \mathrm{warmup} \\
      \mathrm{end} + (\mathrm{peak} - \mathrm{end}) (1 + \cos(\pi w_c)) / 2 & \text{else}
      \end{cases}, \quad
      w_c = \min\left(1, \frac{c - \mathrm{warmup}}{\mathrm{steps} - \mathrm{warmup}}\right)$$

    Args:
        parameters: the number of parameters without embeddings.
        tokens: the number of tokens of the whole run.
        warmup: the number of updates that the rise takes, less than all.
        end: the last rate, or `peak` where that is lower. It is fixed: a fraction of `peak` was seen
            to shift the best `peak`.

    Paper: Li and others, "Predictable Scale: Part I, Step Law", arXiv:2503.04715.
    Departure: the law says nothing of the warm-up; 2000 updates are usual.
    Limits: fitted on dense models of 0.2 to 1.1 billion parameters and 4 to 100 billion tokens,
        trained by AdamW. Between the authors' 1000 bootstrapped fits the exponents have standard
        deviations of 0.03, 0.02 and 0.02.

    >>> law = gk.schedule_by_step_law(1e9, tokens=1e11)
    >>> print(f"{law.peak:.2e}, {law.batch_tokens:.2e} tokens, {law.steps} steps")
    1.63e-03, 1.11e+06 tokens, 90275 steps
    """
    name = "schedule_by_step_law"
    check.concrete(name, parameters=parameters, tokens=tokens)
    check.interval(name, "(0, inf)", parameters=parameters, tokens=tokens)
    check.nonnegative(name, end=end)
    check.count(name, warmup=warmup)
    peak = 1.79 * parameters**-0.713 * tokens**0.307
    batch = 0.58 * tokens**0.571
    steps = math.floor(tokens / batch)
    want = f"warmup must be below the {steps} steps of the run"
    check.holds(name, warmup < steps, want, warmup, "Warm up for less than the run.")
    check.below(name, "2**31", 2**31, steps=steps)
    learning_rate = warmup_cosine(peak, steps, warmup, jnp.minimum(end, peak))
    return StepLaw(learning_rate, peak, batch, steps)
