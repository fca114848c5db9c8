"""AdamP's projection: a direction that does not lengthen scale-invariant weights."""

import math

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, linalg, tree
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Params,
    Scalar,
    Transform,
    Updates,
    transform,
)


def normalize_by_tangent(inner: AnyTransform, delta: Scalar = 0.1) -> Transform:
    r"""Take from `inner`'s direction its part along weights that the gradient is orthogonal to.

    $$d = \mathrm{inner}(g), \qquad u_j = \begin{cases}
      d_j - \langle \hat w_j, d_j \rangle \hat w_j
      & \max_j |\cos(g_j, w_j)| < \delta / \sqrt{\mathrm{size}(w_j)} \\
      d_j & \text{else} \end{cases}, \qquad \hat w_j = w_j / \lVert w_j \rVert$$

    The `j` are the output units, indices of the last axis of a kernel `[..., in, out]`; where
    the test fails for them, the same is tried with the whole leaf as the one `j`. Vectors and
    scalars keep `inner`'s direction.

    Args:
        inner: any transform; its direction is projected.
        delta: how far from orthogonal a gradient may be: the bound of the cosine for a unit of
            one entry.

    Needs: params, and what `inner` needs.
    State: `0` bytes a leaf, `0` once, and the state of `inner`.
    Flops: at most `60*size + 40*cols + 40` a leaf, and those of `inner`.
    Paper: Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on
        Scale-invariant Weights", arXiv:2006.08217, Algorithm 2.
    Departure: takes any `inner`. The release also decays the weights that it projects ten
        times less, and adds `1e-8` to norms and bounds their product by it.
    Limits: a leaf is projected or not at every update anew. Stacked layers `[layers, in, out]`
        are one leaf: use `jax.vmap`.

    >>> tx = gk.normalize_by_tangent(optax.trace(0.9))
    >>> w, g = jnp.array([[2.0], [0.0]]), jnp.array([[0.0], [1.0]])
    >>> _, state = tx.update(w, tx.init(w), w)  # momentum along the weight
    >>> print(tx.update(g, state, w)[0].ravel())
    [0. 1.]
    """
    check.nonnegative("normalize_by_tangent", delta=delta)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> optax.OptState:
        return inner.init(params)

    def update(
        updates: Updates, state: optax.OptState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, optax.OptState]:
        check.given("normalize_by_tangent", params)
        g = tree.read(updates)
        direction, state = inner.update(g, state, params, **extra)

        def project(d: jax.Array, g: jax.Array, w: jax.Array) -> jax.Array:
            if g.ndim < 2:
                return d
            d, w, axes = d.astype(g.dtype), w.astype(g.dtype), tuple(range(g.ndim))
            whole = jnp.where(invariant(g, w, axes, delta), tangent(d, w, axes), d)
            unit = invariant(g, w, axes[:-1], delta)
            return jnp.where(unit, tangent(d, w, axes[:-1]), whole)

        u = jax.tree.map(project, direction, g, params)
        return tree.like(u, updates), state

    return transform(init, update)


def invariant(
    g: jax.Array, w: jax.Array, axes: tuple[int, ...], delta: Scalar
) -> jax.Array:
    """Whether all slices of `g` over `axes` are about orthogonal to those of `w`."""
    cosines = jnp.abs(jnp.sum(unit(g, axes) * unit(w, axes), axes))
    size = max(math.prod(g.shape[a] for a in axes), 1)
    return jnp.max(cosines, initial=0) < jnp.asarray(delta / size**0.5, g.dtype)


def tangent(d: jax.Array, w: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The part of every slice of `d` over `axes` that is orthogonal to that of `w`."""
    w = unit(w, axes)
    return d - jnp.sum(w * d, axes, keepdims=True) * w


def unit(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Every slice of `x` over `axes` at unit norm, or zero."""
    norms = linalg.norms(x, axes)
    return x / jnp.where(norms > 0, norms, 1)
