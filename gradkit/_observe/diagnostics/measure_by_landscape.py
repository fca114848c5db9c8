"""Slices of the loss around parameters, along random directions or those of a run."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, norms, numbers, random, tree
from gradkit._core.measure import figure, lanczos, stacked
from gradkit._core.measure.loss import compiled, one_number, parameters
from gradkit._core.types import Params

NAME = "measure_by_landscape"
MARGIN = 0.25  # of the extent of a path, on both sides


class Landscape(NamedTuple):
    """Losses on a line or in a plane."""

    losses: jax.Array  # [points], or [points, points] with the first direction first
    places: jax.Array  # [directions, points], the distances along each, in its lengths
    directions: Params  # stacked, one leaf [directions, *shape] for each parameter
    path: jax.Array  # [steps, directions], where the trajectory is; no rows without one
    explained: jax.Array  # [directions], of the trajectory's variance; nan without one

    def plot(self, axes: Any = None) -> Any:
        """`plot_landscape` of this result."""
        return plot_landscape(self, axes)


def measure_by_landscape(
    loss: lanczos.Loss,
    params: Params,
    directions: int | Sequence[Params] = 2,
    points: int = 21,
    radius: float | None = None,
    trajectory: Params | None = None,
    key: random.Key = 0,
) -> Landscape:
    r"""Measure the loss on a line or in a plane through the parameters.

    $$f(a, b) = \mathrm{loss}(p + a \, d + b \, e), \qquad
      d_{\cdot j} = \frac{\lVert p_{\cdot j} \rVert}{\lVert r_{\cdot j} \rVert} r_{\cdot j}, \quad
      r \sim \mathcal N(0, I)$$

    Random directions are normalized filter by filter: each slice $j$ along the last axis of a
    parameter, the weights of one output, gets the norm of the parameter's. Vectors and scalars do not
    move. Slices of networks of different scales can so be compared. Given a trajectory, the
    directions are unit vectors, the first principal components of its points less `params`.

    Args:
        loss: of the parameters alone; a number. Fix a batch before: `lambda p: loss(p, batch)`.
            A function is compiled once, a new one anew: define it outside of loops, and change nothing
            in place that it names.
        params: the center; a tree, also one that is sharded over a mesh.
        directions: 1 for a line or 2 for a plane; or one or two trees like params, to move along.
        points: along each direction, at least 3; an odd number has the center among them.
        radius: how far to go along each direction, both ways, in lengths of it. By default 1, or
            what shows the trajectory, with a quarter of its extent around it.
        trajectory: checkpoints of a run, stacked along a first axis of every leaf; at least one more
            than there are directions.
        key: a seed or a key, for random directions.

    Paper: Li, Xu, Taylor, Studer and Goldstein, "Visualizing the Loss Landscape of Neural Nets",
        arXiv:1712.09913, Sections 4 and 7.
    Departure: filters are columns of the last axis, as Flax has them. Principal components are of the
        centered points, as the authors' code computes them, and from float32 inner products of checkpoints.
    Limits: what is flat in two of so many directions need not be so in others. Scanned layers of one leaf
        `[layers, in, out]` have filters over all layers, and a table of embeddings one for each
        feature. Of a random walk too, the first components explain most. One loss is evaluated for every
        point, one after another. Batch normalization must use fixed statistics.

    >>> bowl = lambda p: jnp.sum(p**2)
    >>> found = gk.measure_by_landscape(bowl, jnp.ones((3, 2)), directions=1, points=3)
    >>> norm = lambda x: jnp.linalg.norm(x, axis=-2)  # of each filter
    >>> print(found.losses[1], jnp.allclose(norm(found.directions[0]), norm(jnp.ones((3, 2)))))
    6.0 True
    """
    parameters(NAME, params)
    check.count(NAME, points=points)
    check.at_least(NAME, 3, points=points)
    check.key(NAME, "key", key)
    if radius is not None:
        check.positive(NAME, radius=radius)
    given = None if isinstance(directions, int | np.integer) else [*directions]
    count = directions if isinstance(directions, int | np.integer) else len(directions)
    want, remedy = "directions must be 1 or 2, or as many trees", "Choose 1 or 2."
    check.holds(NAME, count in (1, 2), want, count, remedy)
    if given is not None:
        alike = [stacked.like(NAME, "each direction", d, params) for d in given]
        given = jax.tree.map(lambda *x: jnp.stack(x), *alike)
    if trajectory is not None:
        least = count + 1
        trajectory = stacked.several(NAME, "trajectory", trajectory, params, least)
    params = numbers.wide(params)
    one_number(NAME, loss, params)
    run = compiled(_run, loss, count=count, points=points)
    return run(params, given, trajectory, radius, random.typed(key))


def _run(
    loss: lanczos.Loss,
    params: Params,
    given: Any,
    trajectory: Any,
    radius: Any,
    key: jax.Array,
    *,
    count: int,
    points: int,
) -> Landscape:
    moved = None
    if trajectory is not None:
        moved = jax.tree.map(lambda x, p: x - p[None], trajectory, params)
    d = given
    if d is None and moved is None:
        d = _random(key, params, count)
    elif d is None:
        d = _principal(moved, count)
    kind = tree.zero_per_leaf(params).dtype
    path, explained = _path(d, moved, count, kind)
    places = _places(path, points, radius)

    def at(where: jax.Array) -> jax.Array:
        step = lanczos.combined(d, where[None])
        value = loss(jax.tree.map(lambda p, s: p + s[0], params, step))
        return value.astype(numbers.wide_dtype(value))

    grid = jnp.stack(jnp.meshgrid(*places, indexing="ij"), -1)
    losses = jax.lax.map(at, grid.reshape(-1, count)).reshape(grid.shape[:-1])
    return Landscape(losses, places, d, path, explained)


def _random(key: jax.Array, params: Params, count: int) -> Params:
    """Stacked random directions, each filter with the norm of the parameter's."""

    def leaf(r: jax.Array, p: jax.Array) -> jax.Array:
        if p.ndim < 2:
            return jnp.zeros_like(p)
        others = tuple(range(p.ndim - 1))
        return norms.along(p, others) * (numbers.inverse(norms.along(r, others)) * r)

    def direction(key: jax.Array) -> Params:
        return jax.tree.map(leaf, lanczos.normal_like(key, params), params)

    return jax.lax.map(direction, jax.random.split(key, count))


def _principal(moved: Params, count: int) -> Params:
    """The first principal components of stacked trees, of norm 1; zeros where there are fewer."""
    centered = jax.tree.map(lambda x: x - jnp.mean(x, 0, keepdims=True), moved)
    centered = tree.scale(numbers.inverse(lanczos.norm(centered)), centered)
    gram = jax.lax.map(lambda x: lanczos.coefficients(centered, x), centered)
    values, vectors = jnp.linalg.eigh(gram)
    values, vectors = values[: -count - 1 : -1], vectors[:, : -count - 1 : -1]
    exact = values > 8 * jnp.finfo(gram.dtype).eps * values[0]
    scale = jnp.where(exact, 1 / jnp.sqrt(jnp.where(exact, values, 1)), 0)
    return lanczos.combined(centered, (vectors * scale[None]).T)


def _path(d: Params, moved: Any, count: int, kind: Any) -> tuple[jax.Array, jax.Array]:
    """The trajectory in units of the directions `[steps, count]`, and what these explain."""
    if moved is None:
        return jnp.zeros((0, count), kind), jnp.full(count, jnp.nan, kind)
    inner = lambda t: jax.lax.map(lambda x: lanczos.coefficients(d, x), t)
    # least squares along directions that may not be orthogonal; 0 along one of zeros
    gram = inner(d)
    inverse = jnp.linalg.pinv(gram, hermitian=True)
    path = jnp.matmul(inner(moved), inverse, precision=lanczos.PRECISE)
    variance = jnp.var(path, 0) * jnp.diagonal(gram)
    total = sum(jnp.sum(jnp.var(x, 0)).astype(kind) for x in jax.tree.leaves(moved))
    return path, variance / jnp.where(total > 0, total, jnp.nan)


def _places(path: jax.Array, points: int, radius: Any) -> jax.Array:
    """`[directions, points]`, evenly: within the radius, else over the path and around it."""
    if radius is not None or not len(path):
        reach = jnp.full(path.shape[1], 1 if radius is None else radius, path.dtype)
        low, high = -reach, reach
    else:
        low = jnp.minimum(jnp.min(path, 0), 0)
        high = jnp.maximum(jnp.max(path, 0), 0)
        margin = jnp.where(high > low, MARGIN * (high - low), 1)
        low, high = low - margin, high + margin
    return jnp.linspace(low, high, points, axis=1)


def plot_landscape(result: Landscape, axes: Any = None) -> Any:
    """Draw the loss over one direction as a line, over two as contours, with the trajectory.

    Args:
        result: of `measure_by_landscape`, with numbers that are known.
        axes: of matplotlib; those of a new figure if None.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_landscape", axes)
    losses, places = np.asarray(result.losses), np.asarray(result.places)
    path, explained = np.asarray(result.path), np.asarray(result.explained)
    names = [
        f"direction {i + 1}" + ("" if np.isnan(x) else f" ({x:.0%} of the variance)")
        for i, x in enumerate(explained)
    ]
    if losses.ndim == 1:
        axes.plot(places[0], losses, color="C0")
        for place in path[:, 0]:
            axes.axvline(place, ymax=0.04, color="C1")
        axes.axvline(0, color="0.8", linewidth=0.8, zorder=0)
        title = "" if np.isfinite(losses).any() else "not finite"
        axes.set(xlabel=names[0], ylabel="loss", title=title)
        return axes
    finite = np.ma.masked_invalid(losses.T)
    want, remedy = "result must have a finite loss", "Look at the loss at params."
    check.holds("plot_landscape", finite.count() > 0, want, "none", remedy)
    levels = _levels(finite)
    drawn = axes.contourf(*places, finite, levels=levels, cmap="viridis")
    bar = axes.figure.colorbar(drawn, ax=axes, label="loss", format="%.3g")
    bar.set_ticks(levels[::4])
    axes.plot(0, 0, "*", color="C1", markersize=12, label="params")
    if len(path):
        axes.plot(*path.T, ".-", color="w", label="trajectory")
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.legend(loc="upper right")
    return axes


def _levels(losses: Any, count: int = 21) -> np.ndarray:
    """Heights of contours: denser near the lowest loss, as squares."""
    low, high = float(losses.min()), float(losses.max())
    return low + (high - low + 1e-12) * np.linspace(0, 1, count) ** 2
