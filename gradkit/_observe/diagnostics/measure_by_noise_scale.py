"""The gradient noise scale: the batch size above which a larger batch saves few steps."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check
from gradkit._core.measure import figure, per_example
from gradkit._core.measure.loss import compiled
from gradkit._core.measure.per_example import Loss
from gradkit._core.types import Params

NAME = "measure_by_noise_scale"


class NoiseScale(NamedTuple):
    """The noise of the gradient, of one example, and its size without noise."""

    noise_scale: (
        jax.Array
    )  # [], trace / square, in examples; inf if square is not above 0
    trace: jax.Array  # [], unbiased, of the covariance of one example's gradient
    square: jax.Array  # [], unbiased, of the gradient of endless data; may be below 0
    examples: jax.Array  # int32 [], measured
    nonfinite: jax.Array  # int32 [], gradients that are not finite: all above is nan

    def plot(self, axes: Any = None) -> Any:
        """`plot_noise_scale` of this result."""
        return plot_noise_scale(self, axes)


def measure_by_noise_scale(
    loss: Loss, params: Params, batch: Any, small: int = 1, microbatch: int = 32
) -> NoiseScale:
    r"""Measure the simple noise scale, an estimate of the critical batch size.

    With $g_k$ the gradients of the $K = m / b$ parts of the batch, of $b$ = `small` examples each,
    and $\bar g$ their mean:

    $$\mathrm{trace} = \frac{b}{K - 1} \sum_k \lVert g_k - \bar g \rVert^2, \qquad
      \mathrm{square} = \lVert \bar g \rVert^2 - \frac{\mathrm{trace}}{m}, \qquad
      \mathrm{noise\_scale} = \frac{\mathrm{trace}}{\mathrm{square}}$$

    A step at batch size $B$ lowers the loss by $1 / (1 + \mathrm{noise\_scale} / B)$ of what a step
    without noise does: well below the noise scale twice the batch saves half of the steps, well
    above it next to none.

    Args:
        loss: of parameters and a batch; a number, the mean over the batch.
            A function is compiled once, a new one anew: define it outside of loops, and change nothing
            in place that it names.
        params: the model's parameters.
        batch: a tree of arrays, each with the examples along its first axis.
        small: examples of each part: 1 measures the gradients of single examples. More are cheaper
            and suit losses that need a batch, but `trace` is then of fewer gradients.
        microbatch: how many examples are in memory at a time.

    Returns:
        A `NoiseScale`; `plot(axes=None)` draws it. It may be called in `jax.jit`.

    Errors: fewer than two parts, or examples that `small` does not divide. Where a gradient is not
        finite, `nonfinite` counts it and the rest is nan.
    Paper: McCandlish, Kaplan, Amodei and the OpenAI Dota Team, "An Empirical Model of Large-Batch
        Training", arXiv:1812.06162, Equation 2.9 and Appendix A.1.
    Departure: the appendix subtracts the squares of gradients of two batch sizes. Where the small
        batches are all parts of the large one this is the same estimate, written without the difference.
        Of gradients that are all zero the noise scale is nan.
    Limits: a ratio of unbiased estimates is not unbiased: average `trace` and `square` over batches
        first. Late in training `m` must be about the noise scale or more, else `square` is lost in
        noise. The noise scale assumes plain SGD and a Hessian that is a multiple of the identity.

    >>> loss = lambda w, x: jnp.mean(w * x)  # gradients are the examples: mean 2, variance 2
    >>> found = gk.measure_by_noise_scale(loss, jnp.array(1.0), jnp.array([1.0, 3.0]))
    >>> print(found.trace, found.square)
    2.0 3.0
    """
    batch, m = per_example.checked(NAME, loss, params, batch, microbatch, 2)
    check.count(NAME, small=small)
    want = f"small must divide the number of examples {m} into two parts or more"
    remedy = "Choose a divisor, or 1."
    check.holds(NAME, m % small == 0 and small < m, want, small, remedy)
    return compiled(_run, loss, small=small, microbatch=microbatch)(params, batch)


def _run(
    loss: Loss, params: Params, batch: Any, *, small: int, microbatch: int
) -> NoiseScale:
    found = per_example.moments(loss, params, batch, microbatch, small)
    parts = len(found.squares)
    m = parts * small
    trace = small * jnp.sum(found.spread) / (parts - 1)
    square = jnp.sum(per_example.square(found.mean)) - trace / m
    ratio = trace / jnp.where(square > 0, square, 1)
    scale = jnp.where(square <= 0, jnp.inf, ratio)
    none = (trace == 0) & (square == 0)  # no gradient at all
    return NoiseScale(
        jnp.where(jnp.isnan(trace + square) | none, jnp.nan, scale),
        trace,
        square,
        jnp.array(m, jnp.int32),
        per_example.nonfinite(found.squares),
    )


def plot_noise_scale(result: NoiseScale, axes: Any = None) -> Any:
    """Draw the progress of a step against the batch size on matplotlib's `axes`.

    Args:
        result: of `measure_by_noise_scale`.
        axes: such as `plt.gca()`; new ones by default.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_noise_scale", axes)
    scale, m = float(result.noise_scale), int(result.examples)
    known = np.isfinite(scale) and scale > 0
    middle = scale if known else m
    sizes = np.geomspace(min(1, middle / 100), 100 * max(middle, m), 200)
    step = 1 / (1 + scale / sizes)
    axes.plot(sizes, step, label="progress of a step")
    axes.plot(sizes, 1 - step, label="progress of an example")
    if known:
        axes.axvline(scale, color="C3", linestyle="--")
    said = {0: ": no noise", np.inf: ": the gradient is lost in noise"}.get(scale, "")
    axes.axvline(m, color="0.6", linestyle=":", label=f"measured on {m}")
    axes.set_xscale("log")
    axes.set(xlabel="batch size", ylabel="fraction of the most", ylim=(-0.02, 1.02))
    nan = figure.not_finite(result.nonfinite)
    axes.set_title(nan if np.isnan(scale) else f"noise scale {scale:.3g}{said}")
    axes.legend(frameon=False)
    return axes
