"""Coherence: how far the gradients of examples point the same way."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core.measure import figure, per_example
from gradkit._core.measure.loss import compiled
from gradkit._core.measure.per_example import Loss
from gradkit._core.paths import leaf_paths
from gradkit._core.types import Params

NAME = "measure_by_coherence"


class Coherence(NamedTuple):
    """The alignment of the gradients of examples."""

    alpha: jax.Array  # [], 1 if identical, 1 / m if orthogonal; below they cancel
    m_coherence: jax.Array  # [], m alpha: how many examples one gradient helps
    unbiased: jax.Array  # [], alpha of pairs of different examples: of no m
    leaves: Params  # alpha of each leaf, like the parameters; nan without gradient
    norms: jax.Array  # of the examples' gradients, [m]
    nonfinite: jax.Array  # int32 [], examples of such gradients: all above is nan

    def plot(self, axes: Any = None) -> Any:
        """`plot_coherence` of this result."""
        return plot_coherence(self, axes)


def measure_by_coherence(
    loss: Loss, params: Params, batch: Any, microbatch: int = 32
) -> Coherence:
    r"""Measure how well the gradients of the examples of a batch are aligned.

    With $g_i$ the gradient of example $i$ of $m$, for all parameters and for each leaf:

    $$\alpha = \frac{\lVert \frac{1}{m} \sum_i g_i \rVert^2}{\frac{1}{m} \sum_i \lVert g_i \rVert^2},
      \qquad \mathrm{m\_coherence} = m \alpha, \qquad
      \mathrm{unbiased} = \frac{m \alpha - 1}{m - 1}$$

    `m_coherence` is 1 for orthogonal gradients and `m` for identical ones. A high one says that what
    lowers the loss of one example lowers that of others, and so of new ones.

    Args:
        loss: of parameters and a batch; a number. The loss of one example is that of a batch of one.
            A function is compiled once, a new one anew: define it outside of loops, and change nothing
            in place that it names.
        params: the model's parameters.
        batch: a tree of arrays, each with the examples along its first axis.
        microbatch: how many gradients are in memory at a time.

    Returns:
        A `Coherence`; `plot(axes=None)` draws it. It may be called in `jax.jit`.

    Errors: a batch without examples, or with leaves that have not equally many; a loss that is not
        one number. Where a gradient is not finite, `nonfinite` counts it and the rest is nan.
    Paper: Chatterjee and Zielinski, "On the Generalization Mystery in Deep Learning",
        arXiv:2203.10036; m-coherence is that of arXiv:2008.01217.
    Departure: `unbiased` leaves out the pairs of an example with itself, which alone make `alpha`
        `1 / m` for orthogonal gradients; it is nan of one example. Of gradients that are all zero
        every number is nan; the papers leave this open.
    Limits: the loss of a batch must be made of its examples' losses: not with batch normalization or
        contrastive losses. Squares are summed in float32: norms must be between 1e-18 and 1e18.

    >>> loss = lambda w, x: jnp.mean(x @ w)  # gradients are the examples
    >>> found = gk.measure_by_coherence(loss, jnp.ones(4), jnp.eye(4))
    >>> print(found.m_coherence, found.unbiased)
    1.0 0.0
    """
    batch, _ = per_example.checked(NAME, loss, params, batch, microbatch)
    return compiled(_run, loss, microbatch=microbatch)(params, batch)


def _run(loss: Loss, params: Params, batch: Any, *, microbatch: int) -> Coherence:
    found = per_example.moments(loss, params, batch, microbatch)
    m = len(found.squares)
    of_mean = per_example.square(found.mean)
    mean = jnp.mean(found.squares, 0)
    alpha = jnp.sum(of_mean) / jnp.sum(mean)
    leaves = jax.tree.unflatten(jax.tree.structure(params), list(of_mean / mean))
    return Coherence(
        alpha,
        m * alpha,
        (m * alpha - 1) / (m - 1) if m > 1 else jnp.full_like(alpha, jnp.nan),
        leaves,
        jnp.sqrt(jnp.sum(found.squares, 1)),
        per_example.nonfinite(found.squares),
    )


def plot_coherence(result: Coherence, axes: Any = None) -> Any:
    """Draw the coherence of every leaf, and of all of them, on matplotlib's `axes`.

    Args:
        result: of `measure_by_coherence`.
        axes: such as `plt.gca()`; new ones by default.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_coherence", axes)
    names = [path or "params" for path in leaf_paths(result.leaves)]
    m = len(np.asarray(result.norms))
    values = m * np.array([float(x) for x in jax.tree.leaves(result.leaves)])
    axes.barh(range(len(names)), values, color="C0", label="leaves")
    axes.set_yticks(range(len(names)), names, fontsize=min(10, 250 / len(names)))
    axes.set_ylim(len(names) - 0.5, -0.5)
    whole = float(result.m_coherence)
    axes.axvline(whole, color="C1", label=f"whole, {whole:.3g} of {m}")
    axes.axvline(1, color="0.4", linestyle=":", label="orthogonal")
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="m-coherence", xlim=(0, 1.02 * m))
    if np.isnan(whole):
        axes.set_title(figure.not_finite(result.nonfinite))
    else:
        figure.legend_above(axes)
    return axes
