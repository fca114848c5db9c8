"""The spectrum of the Hessian: its largest eigenvalues, its density, its trace."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, numbers, random
from gradkit._core.measure import figure, lanczos
from gradkit._core.measure.loss import compiled
from gradkit._core.types import Params

NAME = "measure_by_hessian_spectrum"


class HessianSpectrum(NamedTuple):
    """Eigenvalues of a Hessian, the largest first, and how many there are of each size."""

    values: jax.Array  # [count], the largest eigenvalues
    vectors: Params  # their eigenvectors, one leaf [count, *shape] for each parameter
    residuals: jax.Array  # [count], some eigenvalue is as near to a value as this
    lowest: jax.Array  # [], the smallest eigenvalue found
    nodes: jax.Array  # [probes, steps], where quadrature puts weights
    weights: jax.Array  # [probes, steps], at least 0; those of a probe sum to 1
    grid: jax.Array  # [points], eigenvalues at which there is a density
    density: jax.Array  # [points], whose integral is 1
    trace: jax.Array  # []
    trace_error: jax.Array  # [], the standard error over probes; nan of one probe

    def moment(self, power: int) -> jax.Array:
        """The estimate of the trace of the Hessian to a `power`."""
        size = sum(x.size for x in jax.tree.leaves(self.vectors)) // len(self.values)
        return size * jnp.mean(jnp.sum(self.weights * self.nodes**power, -1))

    def plot(self, axes: Any = None) -> Any:
        """`plot_hessian_spectrum` of this result."""
        return plot_hessian_spectrum(self, axes)


def measure_by_hessian_spectrum(
    loss: lanczos.Loss,
    params: Params,
    count: int = 5,
    steps: int = 40,
    probes: int = 4,
    points: int = 512,
    width: float = 0.01,
    key: random.Key = 0,
) -> HessianSpectrum:
    r"""Estimate the largest eigenvalues of the Hessian of a loss, their density and the trace.

    From each of the probes $v_i$, uniform on the sphere, Lanczos' method makes a tridiagonal matrix
    $T_i = U_i \operatorname{diag}(\theta_i) U_i^T$ by $\mathrm{steps}$ products with $H$:

    $$\tau_{ij} = (U_i)_{1j}^2, \quad
      \operatorname{tr} H^k \approx \frac{n}{\mathrm{probes}} \sum_{ij} \tau_{ij} \theta_{ij}^k, \quad
      \phi(\lambda) = \frac{1}{\mathrm{probes}} \sum_{ij} \tau_{ij} \,
        \mathcal N(\lambda; \theta_{ij}, \sigma^2)$$

    of $n$ parameters. $\sigma$ is `width` times the length of the interval that all $\theta$ and 0
    span. Eigenpairs are those of the last probe. Products are forward derivatives of the gradient.
    Many networks have a bulk near 0, and about as many values far above it as there are classes.

    Args:
        loss: of the parameters alone; a number. Fix a batch before: `lambda p: loss(p, batch)`.
            A function is compiled once, a new one anew: define it outside of loops, and change nothing
            in place that it names.
        params: where; a tree, also one that is sharded over a mesh. What has fewer bits than
            float32 is widened.
        count: of the largest eigenvalues.
        steps: products with the Hessian by each probe; at most one for each parameter is made.
        probes: random vectors. The errors of density and trace fall as its root.
        points: of the grid of the density.
        width: of the Gaussians, above 0.
        key: a seed or a key, for the probes.

    Paper: Ghorbani, Krishnan and Xiao, "An Investigation into Neural Net Optimization via Hessian
        Eigenvalue Density", arXiv:1901.10159; bulk and outliers are those of Sagun,
        Evci, Guney, Dauphin and Bottou, arXiv:1706.04454.
    Departure: $\sigma$ is relative to the spectrum, where the paper takes a variance of 1e-5. Every
        vector is orthogonalized twice against all before it, and the space is continued where
        it is invariant, so that no eigenvalue is found twice and no steps are lost.
    Limits: holds `steps` copies of the parameters. Largest means above all others, not farthest
        from 0. An eigenvalue of which there are several is found once, until the steps are as
        many as the parameters. Where a layer normalizes over the batch, or drops at random,
        the loss must do so the same way at each call. Under `jax.jit` make the batch an
        argument of what is jitted. A loss that is not finite gives nan.

    >>> bowl = lambda p: (p[0] ** 2 + 3 * p[1] ** 2 + 5 * p[2] ** 2) / 2
    >>> found = gk.measure_by_hessian_spectrum(bowl, jnp.ones(3), count=2, probes=1)
    >>> print(*(f"{x:.3f}" for x in [*found.values, found.lowest]))
    5.000 3.000 1.000
    """
    lanczos.check_loss(NAME, loss, params, count, steps)
    check.count(NAME, probes=probes, points=points)
    check.positive(NAME, width=width)
    check.key(NAME, "key", key)
    settings = {"count": count, "steps": steps, "probes": probes, "points": points}
    return compiled(_run, loss, **settings)(params, width, random.typed(key))


def _run(
    loss: lanczos.Loss,
    params: Params,
    width: Any,
    key: jax.Array,
    *,
    count: int,
    steps: int,
    probes: int,
    points: int,
) -> HessianSpectrum:
    params, size = numbers.wide(params), lanczos.size(params)
    product = lanczos.hessian_product(loss, params)
    found = lanczos.tridiagonals(product, params, min(steps, size), key, probes)
    nodes, u = jax.vmap(lanczos.eigensystem)(found.diagonal, found.beside)
    weights = jnp.square(u[:, 0])
    last = found._replace(diagonal=found.diagonal[-1], beside=found.beside[-1])
    traces = size * found.diagonal[:, 0]  # v^T H v, without rounding of T
    error = jnp.std(traces, ddof=1) / probes**0.5 if probes > 1 else jnp.nan
    return HessianSpectrum(
        *lanczos.largest(last, count),
        jnp.min(nodes),
        nodes,
        weights,
        *_density(nodes, weights, points, width),
        jnp.mean(traces),
        jnp.asarray(error, traces.dtype),
    )


def _density(
    nodes: jax.Array, weights: jax.Array, points: int, width: Any
) -> tuple[jax.Array, jax.Array]:
    """The grid, over five deviations on both sides, and the mean of Gaussians there."""
    low, high = jnp.minimum(jnp.min(nodes), 0), jnp.maximum(jnp.max(nodes), 0)
    deviation = width * jnp.where(high > low, high - low, 1)
    grid = jnp.linspace(low - 5 * deviation, high + 5 * deviation, points)

    def at(x: jax.Array) -> jax.Array:
        heights = jnp.exp(-jnp.square((x - nodes) / deviation) / 2)
        return jnp.sum(weights * heights) / (len(nodes) * (2 * np.pi) ** 0.5)

    return grid, jax.lax.map(at, grid) / deviation


def plot_hessian_spectrum(result: HessianSpectrum, axes: Any = None) -> Any:
    """Draw the density over eigenvalues, logarithmic, with the largest ones marked.

    Args:
        result: of `measure_by_hessian_spectrum`, with numbers that are known.
        axes: of matplotlib; those of a new figure if None.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_hessian_spectrum", axes)
    density = np.asarray(result.density)
    axes.semilogy(np.asarray(result.grid), density, color="C0", label="density")
    for i, value in enumerate(np.asarray(result.values)):
        label = f"{len(result.values)} largest" if i == 0 else None
        axes.axvline(value, ymax=0.06, color="C1", label=label)
    axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    top = np.nanmax(density, initial=1e-30)
    axes.set_ylim(1e-6 * top, 2 * top)
    trace, error = float(result.trace), float(result.trace_error)
    title = f"trace {trace:.3g}" if np.isfinite(trace) else "not finite"
    title += f" ± {float(f'{error:.2g}'):g}" if np.isfinite(error) else ""
    axes.set(xlabel="eigenvalue of the Hessian", ylabel="density", title=title)
    axes.legend(frameon=False)
    return axes
