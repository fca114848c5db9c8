"""The change of the generalization gap that one step of gradient descent makes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check
from gradkit._core.measure import figure, per_example
from gradkit._core.measure.loss import compiled
from gradkit._core.measure.per_example import Loss
from gradkit._core.types import Params, Scalar

NAME = "measure_by_gap_change"


class GapChange(NamedTuple):
    """Expected changes of losses in one step, to first order in the learning rate."""

    train: jax.Array  # [], of the loss of the examples that the gradient is of
    test: jax.Array  # [], of the loss of new examples
    gap: jax.Array  # [], test - train, at least 0
    trace: jax.Array  # [], unbiased, of the covariance of one example's gradient
    square: jax.Array  # [], unbiased, of the gradient of endless data; may be below 0
    nonfinite: jax.Array  # int32 [], examples of such gradients: all above is nan

    def plot(self, axes: Any = None) -> Any:
        """`plot_gap_change` of this result."""
        return plot_gap_change(self, axes)


def measure_by_gap_change(
    loss: Loss,
    params: Params,
    batch: Any,
    learning_rate: Scalar,
    examples: int | None = None,
    microbatch: int = 32,
) -> GapChange:
    r"""Predict how much further one step of gradient descent takes the test loss from the training loss.

    With $g$ the mean and $C$ the covariance of the gradient of one example, of which a step's gradient
    averages $N$ = `examples`:

    $$\mathrm{train} = -\eta \left(\lVert g \rVert^2 + \frac{\operatorname{tr} C}{N}\right), \qquad
      \mathrm{test} = -\eta \lVert g \rVert^2, \qquad
      \mathrm{gap} = \eta \frac{\operatorname{tr} C}{N}$$

    The noise of the training set is in its gradient and in its loss, so a step goes down along it;
    the test loss does not see it. Both $\lVert g \rVert^2$ and $\operatorname{tr} C$ are estimated
    without bias from the gradients of the batch.

    Args:
        loss: of parameters and a batch; a number. The loss of one example is that of a batch of one.
            A function is compiled once, a new one anew: define it outside of loops, and change nothing
            in place that it names.
        params: the model's parameters.
        batch: a tree of arrays, each with the examples along its first axis; at least two examples.
        learning_rate: of the step, `p - learning_rate * gradient`.
        examples: how many examples the training set has; those of the batch by default.
        microbatch: how many gradients are in memory at a time.

    Returns:
        A `GapChange`; `plot(axes=None)` draws it. It may be called in `jax.jit`.

    Errors: a batch of fewer than two examples. Where a gradient is not finite, `nonfinite` counts it
        and the rest is nan.
    Paper: Roberts, "SGD Implicitly Regularizes Generalization Error", arXiv:2104.04874.
    Departure: $g$ and $C$, expectations in the paper, are estimated, so `test` may come out above 0
        where the noise is larger than the gradient.
    Limits: first order in the learning rate, and for parameters that do not depend on these examples
        yet: measure on new ones later in training. To first order a minibatch of the training set
        changes both losses as the whole set does; that SGD decorrelates steps shows in second order.

    >>> loss = lambda w, x: jnp.mean(w * x)  # gradients are the examples: mean 2, variance 2
    >>> found = gk.measure_by_gap_change(loss, jnp.array(1.0), jnp.array([1.0, 3.0]), 0.5)
    >>> print(found.train, found.test, found.gap)
    -2.0 -1.5 0.5
    """
    batch, m = per_example.checked(NAME, loss, params, batch, microbatch, 2)
    check.one_number(NAME, "learning_rate", learning_rate)
    check.positive(NAME, learning_rate=learning_rate)
    examples = m if examples is None else examples
    check.count(NAME, examples=examples)
    run = compiled(_run, loss, microbatch=microbatch)
    return run(params, batch, learning_rate, float(examples))


def _run(
    loss: Loss,
    params: Params,
    batch: Any,
    learning_rate: Scalar,
    examples: Any,
    *,
    microbatch: int,
) -> GapChange:
    found = per_example.moments(loss, params, batch, microbatch)
    m = len(found.squares)
    trace = jnp.sum(found.spread) / (m - 1)
    square = jnp.sum(per_example.square(found.mean)) - trace / m
    rate = jnp.asarray(learning_rate, trace.dtype)
    test, gap = -rate * square, rate * trace / examples
    bad = per_example.nonfinite(found.squares)
    return GapChange(test - gap, test, gap, trace, square, bad)


def plot_gap_change(result: GapChange, axes: Any = None) -> Any:
    """Draw the changes of the training and test loss in a step on matplotlib's `axes`.

    Args:
        result: of `measure_by_gap_change`.
        axes: such as `plt.gca()`; new ones by default.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_gap_change", axes)
    names = ("train", "test", "gap")
    bars = axes.bar(
        ("training loss", "test loss", "gap"),
        [float(getattr(result, name)) for name in names],
        color=("C0", "C1", "C3"),
    )
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.margins(y=0.12)
    axes.set(ylabel="expected change in one step")
    if result.nonfinite:
        axes.set_title(figure.not_finite(result.nonfinite))
    return axes
