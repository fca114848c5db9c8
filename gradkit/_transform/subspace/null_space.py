"""Gradient projection memory: no step in directions that earlier tasks use."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers
from gradkit._core.factory import factory
from gradkit._core.matrix import layout, linalg
from gradkit._core.types import Extra, Params, Transform, Updates, stateless


@factory
def project_by_null_space(batch_axes: layout.Axes = ()) -> Transform:
    r"""Project each gradient onto the null space of past inputs, given a basis of them.

    $$u = g - P P^T g, \qquad P = \mathrm{basis}$$

    for a $g$ of shape `[inputs, outputs]`, so that $x^T u = 0$ for all inputs $x$ in the span of
    $P$: the layer's outputs for them do not change.

    Args:
        batch_axes: see the glossary.

    Needs: `basis`, a tree like the parameters of `[*batch, rows, directions]`, with orthonormal
        columns: the first left singular vectors of a layer's inputs on past tasks, examples
        in columns. Zero columns are free, and so keep one shape while the basis grows.
    State: `0` bytes a leaf.
    Flops: at most `4*size*min(rows, 128) + 20*size` a leaf, for at most 128 directions.
    Paper: Saha, Garg and Roy, "Gradient Projection Memory for Continual Learning",
        arXiv:2103.09762, Algorithm 1, equation 6.
    Departure: the basis is an argument; collecting a layer's inputs is left to the model. Entries
        of $u$ under 128 roundings of their column of $g$ count as zero, so that no later
        transform enlarges rounding errors.
    Limits: place it last: momentum, weight decay and elementwise scaling step out of the null
        space. Each task makes the null space smaller.

    >>> g, first = jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([[1.0], [0.0]])
    >>> u, _ = gk.project_by_null_space().update(g, (), basis=first)
    >>> print(u)
    [[0. 0.]
     [3. 4.]]
    """
    name = "project_by_null_space"

    def update(
        updates: Updates, params: Params = None, basis: Any = None, **extra: Extra
    ) -> Updates:
        del params, extra
        check.matrix(name, updates, batch_axes)
        gs, structure = jax.tree.flatten(updates)
        bases = jax.tree.leaves(basis)
        check.holds(
            name,
            len(bases) == len(gs),
            "basis must have a matrix for each leaf",
            f"{len(bases)} for {len(gs)}",
            "Call tx.update(grads, state, params, basis=bases).",
        )
        paths = [path for path, _ in check.leaves(updates)]
        return structure.unflatten(map(leaf, paths, gs, bases))

    def leaf(path: str, x: jax.Array, basis: jax.Array) -> jax.Array:
        g = layout.as_matrix(numbers.read(x), batch_axes)
        p = basis.astype(g.dtype)
        check.holds(
            name,
            p.ndim == g.ndim and p.shape[:-1] == g.shape[:-1],
            f"the basis of leaf {path} must have the shape {(*g.shape[:-1], 'directions')}",
            basis.shape,
            "Give the basis of the layer's inputs, one direction a column.",
        )
        u = g - p @ jnp.matmul(p.mT, g, precision=jax.lax.Precision.HIGHEST)
        u = linalg.above_rounding(u, norms.along(g, -2))
        return layout.like(u, x, batch_axes).astype(x.dtype)

    return stateless(update)
