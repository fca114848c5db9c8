"""Opposing signals: groups of examples between which a step shifts loss."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, tree
from gradkit._core.measure import figure, per_example
from gradkit._core.measure.loss import compiled, real
from gradkit._core.measure.per_example import Loss
from gradkit._core.types import Params

NAME = "measure_by_opposing_signals"


class OpposingSignals(NamedTuple):
    """The examples whose losses a step changed most, and their gradients before it."""

    before: jax.Array  # losses before the step, [m]
    after: jax.Array  # losses after it, [m]
    worse: jax.Array  # int32 [count], whose losses rose most, the most first
    better: jax.Array  # int32 [count], whose losses fell most, the most first
    cosine: jax.Array  # [], of the groups' mean gradients; -1 if opposed
    worse_norm: jax.Array  # [], of the mean gradient of `worse`
    better_norm: jax.Array  # [], of that of `better`
    mean_norm: jax.Array  # [], of the mean gradient of all examples
    fraction: jax.Array  # [], of the sum of |after - before|, that of the two groups
    nonfinite: jax.Array  # int32 [], examples of such losses, in no group

    def plot(self, axes: Any = None) -> Any:
        """`plot_opposing_signals` of this result."""
        return plot_opposing_signals(self, axes)


def measure_by_opposing_signals(
    loss: Loss,
    before: Params,
    after: Params,
    batch: Any,
    count: int = 10,
    microbatch: int = 32,
) -> OpposingSignals:
    r"""Find the two groups of examples whose losses a step raised and lowered most.

    With $\ell_i$ the loss of example $i$ and $d_i$ its change from `before` to `after`:

    $$\mathrm{worse} = \operatorname{top}_{\mathrm{count}}(d), \qquad
      \mathrm{better} = \operatorname{top}_{\mathrm{count}}(-d), \qquad
      \mathrm{cosine} = \cos\Bigl(\sum_{\mathrm{worse}} \nabla \ell_i,
      \sum_{\mathrm{better}} \nabla \ell_i\Bigr)$$

    with gradients at `before`. Two small groups with gradients far longer than that of all examples,
    a cosine near -1, and a large `fraction` of the change are outliers with opposing signals: a
    step down on one goes up on the other, and their balance is what a spike of the loss breaks.

    Args:
        loss: of parameters and a batch; a number. The loss of one example is that of a batch of one.
            A function is compiled once, a new one anew: define it outside of loops, and change nothing
            in place that it names.
        before: parameters before a step, or several.
        after: parameters after it.
        batch: a tree of arrays, each with the examples along its first axis.
        count: examples in each group, at most half of all.
        microbatch: how many examples are in memory at a time.

    Returns:
        An `OpposingSignals`; `plot(axes=None)` draws it. It may be called in `jax.jit`.

    Errors: groups that would overlap, parameters of other shapes. An example with a loss that is not
        finite is counted in `nonfinite`; if that leaves too few for both groups, they overlap or hold such
        examples.
    Paper: Rosenfeld and Risteski, "Outliers with Opposing Signals Have an Outsized Effect on Neural
        Network Optimization", arXiv:2311.04163.
    Departure: the paper looks at the pictures in both groups; the cosine, the norms and `fraction`
        say the same in numbers. A cosine with a gradient of zero is 0.
    Limits: a step along the gradient of one group lowers that group's loss, so a cosine alone, of
        groups that are chosen by the step, leans below 0: look at the norms and the fraction. Where
        few losses rose, `worse` has examples that fell least. The sharpness, which rises with the
        signals' strength, is measured by `measure_by_stability`.

    >>> loss = lambda w, x: jnp.mean(jnp.square(w - x))  # pulled to 5, to -5 and to 0
    >>> found = gk.measure_by_opposing_signals(loss, jnp.array(0.0), jnp.array(1.0),
    ...     jnp.array([5.0, -5.0, 0.1, -0.1]), count=1)
    >>> print(found.better, found.worse, found.cosine)
    [0] [1] -1.0
    """
    batch, m = per_example.checked(NAME, loss, before, batch, microbatch, 2, "before")
    check.count(NAME, count=count)
    want = f"count must be at most half of the {m} examples"
    check.holds(NAME, 2 * count <= m, want, count, "Choose smaller groups.")
    want = "after must have the leaves and shapes of before"
    same = jax.tree.structure(before) == jax.tree.structure(after)
    shapes = [jax.tree.map(jnp.shape, jax.tree.leaves(p)) for p in (before, after)]
    remedy = "Pass parameters of the same model."
    check.holds(NAME, same and shapes[0] == shapes[1], want, shapes[1], remedy)
    real(NAME, after, "after")
    run = compiled(_run, loss, count=count, microbatch=microbatch)
    return run(before, after, batch)


def _run(
    loss: Loss,
    before: Params,
    after: Params,
    batch: Any,
    *,
    count: int,
    microbatch: int,
) -> OpposingSignals:
    first, then = (
        per_example.losses(loss, p, batch, microbatch) for p in (before, after)
    )
    change = then - first
    is_known = jnp.isfinite(change)
    known = jnp.where(is_known, change, 0)
    order = jnp.argsort(jnp.where(is_known, change, jnp.nan)).astype(jnp.int32)
    rising = jnp.sum(is_known, dtype=jnp.int32) - 1 - jnp.arange(count)
    worse, better = order[rising], order[:count]  # nan is last
    groups = jnp.concatenate([worse, better])

    def gradient(examples: jax.Array) -> Params:
        some = jax.tree.map(lambda x: x[examples], batch)
        return per_example.moments(loss, before, some, microbatch).mean

    up, down, mean = map(gradient, (worse, better, jnp.arange(len(first))))
    norm = lambda g: jnp.sqrt(jnp.sum(per_example.square(g)))
    total = jnp.sum(jnp.abs(known))
    return OpposingSignals(
        first,
        then,
        worse,
        better,
        tree.ratio(tree.dot(up, down), norm(up) * norm(down)),
        norm(up),
        norm(down),
        norm(mean),
        tree.ratio(jnp.sum(jnp.abs(known[groups])), total),
        jnp.sum(~is_known, dtype=jnp.int32),
    )


def plot_opposing_signals(result: OpposingSignals, axes: Any = None) -> Any:
    """Draw each example's loss after the step against that before it on matplotlib's `axes`.

    Args:
        result: of `measure_by_opposing_signals`.
        axes: such as `plt.gca()`; new ones by default.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_opposing_signals", axes)
    before, after = np.asarray(result.before), np.asarray(result.after)
    axes.plot(before, after, ".", color="0.7", label="other examples")
    for which, color in (("worse", "C3"), ("better", "C0")):
        at = np.asarray(getattr(result, which))
        norm = float(getattr(result, f"{which}_norm"))
        label = f"{which}: gradient {norm:.2g}"
        axes.plot(before[at], after[at], "o", color=color, label=label)
    both = np.concatenate([before, after])
    both = both[np.isfinite(both)]
    if both.size:
        ends = [both.min(), both.max()]
        axes.plot(ends, ends, color="0.4", linewidth=0.8, label="no change")
    title = f"cosine {float(result.cosine):.2f}, all: gradient {float(result.mean_norm):.2g}"
    if result.nonfinite:
        title += f"\n{figure.not_finite(result.nonfinite, 'losses')}"
    axes.set(xlabel="loss before", ylabel="loss after", title=title)
    axes.legend(frameon=False)
    return axes
