"""How much of the gradient lies in the directions of largest curvature, and whether these stay."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, numbers, random, tree
from gradkit._core.measure import figure, lanczos, stacked
from gradkit._core.measure.loss import compiled
from gradkit._core.types import Params

NAME = "measure_by_subspace_overlap"
ROUNDING = 0.01  # of inner products of a basis that counts as orthonormal


class SubspaceOverlap(NamedTuple):
    """The top eigenvectors of a Hessian, and what lies in their span."""

    fraction: jax.Array  # [], of the gradient's squared norm; nan of a gradient of 0
    overlap: jax.Array  # [], with the earlier subspace, 0 to 1; nan without one
    cosine: jax.Array  # [], of the angle between the gradient g and H g
    coefficients: jax.Array  # [count], of g / |g| along each eigenvector
    values: jax.Array  # [count], the largest eigenvalues, the largest first
    vectors: Params  # their eigenvectors, one leaf [count, *shape] for each parameter

    def plot(self, axes: Any = None) -> Any:
        """`plot_subspace_overlap` of this result."""
        return plot_subspace_overlap(self, axes)


def measure_by_subspace_overlap(
    loss: lanczos.Loss,
    params: Params,
    count: int = 10,
    steps: int = 40,
    earlier: Params | None = None,
    key: random.Key = 0,
) -> SubspaceOverlap:
    r"""Measure which fraction of the gradient lies in the span of the Hessian's top eigenvectors.

    With the eigenvectors $V \in \mathbb R^{n \times k}$ of the $k = \mathrm{count}$ largest
    eigenvalues of $H$, and those of an earlier time, $V'$, of which there are $k'$:

    $$\mathrm{fraction} = \frac{\lVert V^T g \rVert^2}{\lVert g \rVert^2}, \qquad
      \mathrm{overlap} = \frac{\operatorname{tr} P P'}{\sqrt{\operatorname{tr} P \operatorname{tr} P'}}
        = \frac{\lVert V^T V' \rVert_F^2}{\sqrt{k k'}}, \qquad
      \mathrm{cosine} = \frac{\langle g, H g \rangle}{\lVert g \rVert \lVert H g \rVert}$$

    A random direction has a fraction of $k / n$, two random subspaces overlap as much. In training
    with SGD both come near 1 early, for $k$ the number of classes.

    Args:
        loss: of the parameters alone; a number. Fix a batch before: `lambda p: loss(p, batch)`.
            A function is compiled once, a new one anew: define it outside of loops, and change nothing
            in place that it names.
        params: where; a tree, also one that is sharded over a mesh.
        count: of eigenvectors; the number of classes in the paper.
        steps: of Lanczos' method, each a product with the Hessian.
        earlier: the `vectors` of another result, orthonormal; None for no overlap.
        key: a seed or a key, for the first vector.

    Paper: Gur-Ari, Roberts and Dyer, "Gradient Descent Happens in a Tiny Subspace",
        arXiv:1812.04754.
    Departure: none.
    Limits: holds `steps` copies of the parameters. An `earlier` basis that is not orthonormal
        has an overlap of nan, and a loss that is not finite has nan alone. Where eigenvalues at the `count`th place are nearly equal, the subspace is
        ill-determined, and so is its overlap. A large fraction does not mean that these directions
        lower the loss: they are the steepest, along which SGD mostly oscillates.

    >>> bowl = lambda p: (p["a"] ** 2 + 5 * p["b"] ** 2) / 2  # along b the curvature is largest
    >>> at = {"a": jnp.float32(5.0), "b": jnp.float32(1.0)}
    >>> print(gk.measure_by_subspace_overlap(bowl, at, count=1).fraction.round(3))  # g = (5, 5)
    0.5
    """
    lanczos.check_loss(NAME, loss, params, count, steps)
    check.key(NAME, "key", key)
    if earlier is not None:
        earlier = stacked.several(NAME, "earlier", earlier, params)
    run = compiled(_run, loss, count=count, steps=steps)
    return run(params, earlier, random.typed(key))


def _run(
    loss: lanczos.Loss,
    params: Params,
    earlier: Params | None,
    key: jax.Array,
    *,
    count: int,
    steps: int,
) -> SubspaceOverlap:
    params = numbers.wide(params)
    found = lanczos.top_eigenpairs(loss, params, count, steps, key)
    gradient = jax.grad(loss)(params)
    norm, unit = lanczos.norm(gradient), lanczos.unit(gradient)
    curved = lanczos.hessian_product(loss, params)(unit)
    length = lanczos.norm(curved)
    along = lanczos.coefficients(found.vectors, unit)
    some = jnp.where(norm > 0, 1, jnp.nan)
    return SubspaceOverlap(
        some * jnp.sum(jnp.square(along)),
        _overlap(found.vectors, earlier, norm.dtype),
        some * tree.dot(unit, curved) / jnp.where(length > 0, length, jnp.nan),
        along,
        found.values,
        found.vectors,
    )


def _overlap(now: Params, earlier: Params | None, dtype: Any) -> jax.Array:
    """The overlap of the spans of two orthonormal bases; nan where the earlier is not one."""
    if earlier is None:
        return jnp.asarray(jnp.nan, dtype)
    each = lambda a, b: jax.lax.map(lambda x: lanczos.coefficients(a, x), b)
    gram = each(earlier, earlier)
    off = jnp.max(jnp.abs(gram - jnp.eye(len(gram), dtype=gram.dtype)))
    k = stacked.count(now) * stacked.count(earlier)
    overlap = jnp.sum(jnp.square(each(now, earlier))) / k**0.5
    return jnp.where(off < ROUNDING, overlap, jnp.nan)


def plot_subspace_overlap(result: SubspaceOverlap, axes: Any = None) -> Any:
    """Draw the fraction of the gradient along each top eigenvector, and their sum.

    Args:
        result: of `measure_by_subspace_overlap`, with numbers that are known.
        axes: of matplotlib; those of a new figure if None.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_subspace_overlap", axes)
    each = np.square(np.asarray(result.coefficients))
    places = np.arange(1, len(each) + 1)
    axes.bar(places, each, color="C0", label="along each eigenvector")
    axes.step(places, np.cumsum(each), where="mid", color="C1", label="sum")
    title = f"fraction {float(result.fraction):.3g}"
    if np.isnan(result.values).any():
        title = "not finite"
    if not np.isnan(result.overlap):
        title += f", overlap with the earlier subspace {float(result.overlap):.3g}"
    axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.set(xlabel="eigenvector, of the largest first", ylabel="fraction of |g|²")
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False)
    return axes
