"""Scores of examples by how much they move a classifier: GraNd and EL2N."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradkit._core import check, shard
from gradkit._core.call import error
from gradkit._core.measure import figure, per_example
from gradkit._core.measure.loss import compiled, parameters
from gradkit._core.types import Params

NAME = "measure_by_example_score"
Logits = Callable[[Params, Any], jax.Array]  # of parameters and inputs, [m, classes]


class ExampleScore(NamedTuple):
    """Scores of each example; nan of one whose label is no class, or whose logits are not finite."""

    grand: jax.Array  # the norm of its loss's gradient, [m]
    el2n: jax.Array  # error norm of probabilities, [m], up to sqrt(2)
    losses: jax.Array  # the cross-entropy, [m]
    correct: jax.Array  # bool [m], whether the largest logit is that of its label
    nonfinite: jax.Array  # int32 [], examples without a score

    def plot(self, axes: Any = None) -> Any:
        """`plot_example_score` of this result."""
        return plot_example_score(self, axes)


def measure_by_example_score(
    logits: Logits, params: Params, inputs: Any, labels: Any, microbatch: int = 32
) -> ExampleScore:
    r"""Score each example by the norm of its gradient (GraNd) and of its error (EL2N).

    With $f(x)$ the logits, $y$ the label, and $\ell$ the cross-entropy:

    $$\mathrm{grand} = \lVert \nabla_p \, \ell(f(x), y) \rVert, \qquad
      \mathrm{el2n} = \lVert \operatorname{softmax}(f(x)) - \mathrm{onehot}(y) \rVert$$

    The expectation over first parameters is left to the caller:
    `jax.vmap(lambda p: gk.measure_by_example_score(logits, p, inputs, labels))` over stacked
    parameters of about ten short runs, and the mean. Low scores mark examples that can be left out,
    the very highest often wrong labels.

    Args:
        logits: of parameters and inputs, `[examples, classes]`.
            A function is compiled once, a new one anew: define it outside of loops, and change nothing
            in place that it names.
        params: the model's parameters.
        inputs: a tree of arrays, each with the examples along its first axis.
        labels: whole numbers from 0 to classes - 1, `[examples]`.
        microbatch: how many gradients are in memory at a time.

    Returns:
        An `ExampleScore`; `plot(axes=None)` draws it. It may be called in `jax.jit`.

    Errors: labels of another number than the inputs, or that are no whole numbers; a label that is
        no class. In `jax.jit`, where labels are not known, the scores of such an example are nan.
    Paper: Paul, Ganguli and Dziugaite, "Deep Learning on a Data Diet: Finding Important Examples
        Early in Training", arXiv:2107.07075.
    Departure: none; the paper averages both over first parameters.
    Limits: EL2N is the norm of the gradient by the logits, and stands for GraNd only where the logits'
        own gradients are alike. At random first parameters GraNd prunes no better than chance
        (Kirsch, arXiv:2303.14753): score after some epochs of training, in fine-tuning of language
        models after one or more (Fayyaz et al., arXiv:2211.05610).

    >>> found = gk.measure_by_example_score(lambda w, x: x @ w, jnp.zeros((3, 2)), jnp.eye(3),
    ...     jnp.array([0, 1, 1]))  # probabilities of a half, so errors of (1/2, 1/2)
    >>> print(found.el2n.round(3), found.grand.round(3))
    [0.707 0.707 0.707] [0.707 0.707 0.707]
    """
    inputs, m = per_example.counted(NAME, inputs)
    check.count(NAME, microbatch=microbatch)
    parameters(NAME, params)
    labels = _checked(logits, params, inputs, labels, m)
    return compiled(_run, logits, microbatch=microbatch)(params, inputs, labels)


def _run(
    logits: Logits, params: Params, inputs: Any, labels: jax.Array, *, microbatch: int
) -> ExampleScore:
    def of_one(params: Params, x: Any, y: jax.Array) -> tuple[jax.Array, Any]:
        z = logits(params, per_example.of_one(x))[0]
        z = z.astype(jnp.promote_types(z.dtype, jnp.float32))
        own = jnp.arange(z.size, dtype=y.dtype) == y
        nan = jnp.where(jnp.any(own), 0, jnp.nan).astype(z.dtype)  # of no class
        value = nan - jnp.sum(jnp.where(own, jax.nn.log_softmax(z), 0))
        wrong = nan + jax.nn.softmax(z) - own.astype(z.dtype)
        return value, (wrong, jnp.argmax(z) == y)

    def score(xy: Any) -> Any:
        f = jax.value_and_grad(of_one, has_aux=True)
        (value, (wrong, correct)), g = f(params, *xy)
        squares = per_example.square(jax.tree.map(_wide, g))
        grand = jnp.sqrt(jnp.sum(squares)) + 0 * value.astype(squares.dtype)
        return grand, jnp.sqrt(jnp.sum(jnp.square(wrong))), value, correct

    grand, el2n, losses, correct = per_example.each(score, (inputs, labels), microbatch)
    bad = ~(jnp.isfinite(grand) & jnp.isfinite(el2n))
    return ExampleScore(grand, el2n, losses, correct, jnp.sum(bad, dtype=jnp.int32))


def _wide(g: jax.Array) -> jax.Array:
    return g.astype(jnp.promote_types(g.dtype, jnp.float32))


def _checked(
    logits: Logits, params: Params, inputs: Any, labels: Any, m: int
) -> jax.Array:
    """The labels as an array; those that are known must be classes."""
    labels = shard.whole(jnp.asarray(labels))
    want = f"labels must have the shape of the examples ({m},)"
    remedy = "Pass one label for each input, not one-hot."
    check.holds(NAME, labels.shape == (m,), want, labels.shape, remedy)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        text = f"labels must be whole numbers, got {labels.dtype}. Pass indices of classes."
        raise error(TypeError, NAME, text)
    kind = jax.eval_shape(logits, params, per_example.abstract_of_one(inputs))
    shape = getattr(kind, "shape", type(kind).__name__)
    is_row = isinstance(shape, tuple) and len(shape) == 2 and shape[0] == 1
    want = "logits must return [examples, classes], for one example (1, classes)"
    check.holds(NAME, is_row, want, shape, "Reshape them.")
    if not isinstance(labels, Tracer):
        known = np.asarray(labels)
        wrong = known[(known < 0) | (known >= kind.shape[1])]
        want = f"labels must be from 0 to {kind.shape[1] - 1}, one of the classes"
        remedy = "Number the classes from 0."
        check.holds(NAME, not wrong.size, want, wrong[:1], remedy)
    return labels


def plot_example_score(result: ExampleScore, axes: Any = None) -> Any:
    """Draw GraNd against EL2N, one point for each example, on matplotlib's `axes`.

    Args:
        result: of `measure_by_example_score`.
        axes: such as `plt.gca()`; new ones by default.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_example_score", axes)
    grand, el2n, correct = map(np.asarray, (result.grand, result.el2n, result.correct))
    for which, color, label in ((correct, "C0", "right"), (~correct, "C3", "wrong")):
        if which.any():
            axes.plot(el2n[which], grand[which], ".", color=color, label=label)
    axes.set(xlabel="EL2N", ylabel="GraNd", xlim=(-0.03, 2**0.5 + 0.03))
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, title="prediction")
    if result.nonfinite:
        axes.set_title(figure.not_finite(result.nonfinite, "scores"))
    return axes
