"""Linear stability of gradient descent and of SGD at a minimum, by the Hessians of examples."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from gradkit._core import check, numbers, random
from gradkit._core.measure import figure, lanczos, per_example
from gradkit._core.measure.loss import compiled
from gradkit._core.measure.per_example import Loss
from gradkit._core.types import Params, Scalar

NAME = "measure_by_stability"


class Stability(NamedTuple):
    """The curvature at a minimum, and the learning rates above which no step stays near it."""

    learning_rate: jax.Array  # [], as given
    sharpness: jax.Array  # [], the largest eigenvalue of the Hessian H
    trace: jax.Array  # [], of H
    coherence: jax.Array  # [], sigma, from 1, orthogonal Hessians, to m, aligned ones
    gradient_descent_rate: jax.Array  # [], 2 / sharpness; inf if that is not above 0
    coherence_rate: jax.Array  # [], of SGD, by the coherence; inf of the full batch
    trace_rate: jax.Array  # [], of SGD, by the trace; inf if that is not above 0
    is_unstable: jax.Array  # bool [], whether learning_rate is above any of the three
    alignment: jax.Array  # S, [m, m]
    largest: jax.Array  # the largest eigenvalue of each example's Hessian, [m]

    def plot(self, axes: Any = None) -> Any:
        """`plot_stability` of this result."""
        return plot_stability(self, axes)


def measure_by_stability(
    loss: Loss,
    params: Params,
    batch: Any,
    learning_rate: Scalar,
    batch_size: int = 1,
    steps: int = 32,
    probes: int | None = None,
    key: random.Key = 0,
    microbatch: int = 32,
) -> Stability:
    r"""Measure at which learning rates gradient descent and SGD leave a minimum.

    With $H_i$ the Hessian of the loss of example $i$ of $m$, $H$ their mean, $\lambda$ the largest
    eigenvalue of a matrix, and batches of $B$ = `batch_size`:

    $$S_{ij} = \lVert H_i^{1/2} H_j^{1/2} \rVert_F = \sqrt{\operatorname{tr} H_i H_j}, \qquad
      \mathrm{coherence} = \sigma = \frac{\lambda(S)}{\max_i \lambda(H_i)}, \qquad
      \nu = \frac{m}{B} - 1$$

    $$\mathrm{gradient\_descent\_rate} = \frac{2}{\lambda(H)}, \qquad
      \mathrm{coherence\_rate} = \frac{\sigma}{\lambda(H) \sqrt{\nu}}, \qquad
      \mathrm{trace\_rate} = \frac{2 \operatorname{tr} H}{\lVert H \rVert_F^2 +
      \frac{\nu}{m} \frac{1}{m} \sum_i \lVert H_i \rVert_F^2}$$

    Above any one of these learning rates the expected square of the distance to the minimum grows without
    bound: each is sufficient for instability, and below all three the minimum may be unstable still.
    Training at a constant rate $\eta$ tends to end where `sharpness` is about $2 / \eta$ for large
    batches, and below it for small ones.

    Args:
        loss: of parameters and a batch; a number, the mean over the batch.
            A function is compiled once, a new one anew: define it outside of loops, and change nothing
            in place that it names.
        params: those of a minimum, or near it.
        batch: a tree of arrays, each with the examples along its first axis: the training set, or
            a sample of it of which all batches are drawn.
        learning_rate: of `p - learning_rate * gradient`, compared with the three rates.
        batch_size: examples of a batch; the number of examples for gradient descent.
        steps: of Lanczos' method for each largest eigenvalue.
        probes: random vectors that traces are estimated with; by default one product is made for
            each parameter, and traces are exact.
        key: a seed or a `jax.random` key, of the random vectors.
        microbatch: how many examples are in memory at a time.

    Returns:
        A `Stability`; `plot(axes=None)` draws it. It may be called in `jax.jit`.

    Errors: a batch size above the number of examples. Where a loss is not finite, numbers are nan, and
        so is every rate; `is_unstable` is then false.
    Paper: Dexter et al., "A Precise Characterization of SGD Stability Using Loss Surface Geometry",
        arXiv:2401.12332, for the coherence; Wu and Su, "The Implicit Regularization of Dynamical
        Stability in Stochastic Gradient Descent", arXiv:2305.17490, for the trace.
    Departure: each example is in a batch with probability $B / m$, as in the first paper. The second
        bounds the trace by $2 / \eta$. `trace_rate` is where a distance that is alike in all
        directions begins to grow in the mean square, which depends on the batch size; for batches of
        one and Hessians of rank one it is at most 2 / trace.
    Limits: theory of a minimum of every example's loss, with Hessians without negative eigenvalues.
        Elsewhere a negative trace of $H_i H_j$ counts as 0, and a sharpness or a trace that is not
        above 0 sets no limit. `m` gradients are in memory, and a
        product with each $H_i$ is made for every parameter or probe: for small models, or few
        probes, with which the coherence leans upwards. Momentum and adaptive steps have other limits.

    >>> loss = lambda w, x: jnp.mean(jnp.square(x @ w)) / 2  # orthogonal examples
    >>> found = gk.measure_by_stability(loss, jnp.zeros(2), jnp.array([[2.0, 0], [0, 2]]), 0.1)
    >>> print(*(x.round(3) for x in found[1:6]))
    2.0 4.0 1.0 1.0 0.5
    """
    batch, m = per_example.checked(NAME, loss, params, batch, microbatch)
    check.one_number(NAME, "learning_rate", learning_rate)
    check.positive(NAME, learning_rate=learning_rate)
    check.count(NAME, batch_size=batch_size, steps=steps)
    want = f"batch_size must be at most the number of examples {m}"
    check.holds(NAME, batch_size <= m, want, batch_size, "Pass more examples.")
    check.key(NAME, "key", key)
    if probes is not None:
        check.count(NAME, probes=probes)
    run = compiled(_run, loss, steps=steps, probes=probes, microbatch=microbatch)
    noise = m / batch_size - 1
    return run(params, batch, learning_rate, noise, random.typed(key))


def _run(
    loss: Loss,
    params: Params,
    batch: Any,
    learning_rate: Scalar,
    noise: Scalar,
    key: jax.Array,
    *,
    steps: int,
    probes: int | None,
    microbatch: int,
) -> Stability:
    params = numbers.wide(params)
    keys, m = jax.random.split(key), len(jax.tree.leaves(batch)[0])
    of_one = lambda x: lambda p: loss(p, per_example.of_one(x))
    top = lambda f: lanczos.top_eigenvalues(f, params, 1, steps, keys[0])[0]
    mean = lambda p: jnp.mean(per_example.losses(loss, p, batch, microbatch))
    sharpness = top(mean)
    largest = per_example.each(lambda x: top(of_one(x)), batch, microbatch)
    products = _traces_of_products(loss, params, batch, microbatch, probes, keys[1])
    alignment = jnp.sqrt(jnp.maximum(products.pairs, 0))
    most = jnp.linalg.eigvalsh(alignment)[-1]
    coherence = most / jnp.where(jnp.max(largest) > 0, jnp.max(largest), jnp.nan)
    rate = jnp.asarray(learning_rate, sharpness.dtype)
    squares = jnp.mean(products.pairs)
    squares += noise / m * jnp.mean(jnp.diagonal(products.pairs))
    limits = (
        _over(2, sharpness),
        _over(coherence, sharpness * noise**0.5),
        _over(2 * products.trace, squares),
    )
    return Stability(
        rate,
        sharpness,
        products.trace,
        coherence,
        *limits,
        jnp.any(rate > jnp.stack(limits)),
        alignment,
        largest,
    )


class _Traces(NamedTuple):
    trace: jax.Array  # of the mean Hessian, []
    pairs: jax.Array  # of H_i H_j, [m, m]


def _traces_of_products(
    loss: Loss,
    params: Params,
    batch: Any,
    microbatch: int,
    probes: int | None,
    key: jax.Array,
) -> _Traces:
    """Sums of `v^T H v` and `(H_i v)^T H_j v` over unit vectors, or means over random signs."""
    flat, unravel = ravel_pytree(params)
    m = jax.tree.leaves(batch)[0].shape[0]
    count = flat.size if probes is None else probes

    def vector(i: jax.Array) -> jax.Array:
        if probes is None:
            return jnp.zeros_like(flat).at[i].set(1)
        return jax.random.rademacher(jax.random.fold_in(key, i), flat.shape, flat.dtype)

    def add(sums: _Traces, i: jax.Array) -> tuple[_Traces, None]:
        v = vector(i)

        def product(x: Any) -> jax.Array:
            of_one = lambda p: loss(p, per_example.of_one(x))
            return ravel_pytree(lanczos.hessian_product(of_one, params)(unravel(v)))[0]

        hv = per_example.each(product, batch, microbatch)  # [m, size]
        dot = lambda a, b: jnp.dot(a, b, precision=lanczos.PRECISE)
        trace = sums.trace + dot(v, jnp.mean(hv, 0))
        return _Traces(trace, sums.pairs + dot(hv, hv.T)), None

    zero = _Traces(jnp.zeros([], flat.dtype), jnp.zeros((m, m), flat.dtype))
    sums = jax.lax.scan(add, zero, jnp.arange(count))[0]
    return sums if probes is None else _Traces(*(x / probes for x in sums))


def _over(a: Any, b: jax.Array) -> jax.Array:
    """`a / b`; infinity, no limit, where one of them is not above 0."""
    none = (a <= 0) | (b <= 0)
    return jnp.where(none, jnp.inf, a / jnp.where(none, 1, b))


def plot_stability(result: Stability, axes: Any = None) -> Any:
    """Draw the learning rates above which a minimum is unstable on matplotlib's `axes`.

    Args:
        result: of `measure_by_stability`.
        axes: such as `plt.gca()`; new ones by default.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_stability", axes)
    names = ("gradient_descent_rate", "coherence_rate", "trace_rate")
    values = np.array([float(getattr(result, name)) for name in names])
    rate = float(result.learning_rate)
    drawn = np.append(values[np.isfinite(values) & (values > 0)], rate)
    low, high = drawn.min() / 4, drawn.max() * 4
    for i, value in enumerate(values):
        color = "C3" if rate > value else "C0"
        axes.barh(i, min(value, high) - low, left=low, color=color)
        said = {np.inf: "no limit"}.get(value, f"{value:.3g}")
        beside = axes.get_yaxis_transform()
        axes.text(1.01, i, said, va="center", color="0.3", transform=beside)
    axes.set_yticks(range(3), [name.replace("_", " ") for name in names])
    axes.set_ylim(2.5, -1)  # room for the learning rate
    axes.axvline(rate, color="k", linestyle="--")
    at = {"ha": "left" if rate**2 < low * high else "right", "va": "center"}
    axes.text(rate, -0.75, f"  learning rate {rate:.3g}  ", **at)
    said = [
        f"{x} {getattr(result, x):.3g}" for x in ("sharpness", "trace", "coherence")
    ]
    figure.log_axis(axes, low, high)
    title = "not finite" if np.isnan(float(result.trace)) else ", ".join(said)
    axes.set(xlabel="unstable above", title=title)
    return axes
