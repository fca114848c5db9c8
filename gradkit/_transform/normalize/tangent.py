"""AdamP's projection: a direction that does not lengthen scale-invariant weights."""

import math

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, norms, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Hyper,
    Params,
    Scalar,
    Transform,
    Updates,
    transform,
)


@factory
def normalize_by_tangent(inner: AnyTransform, *, delta: Hyper = 0.1) -> Transform:
    r"""Take from `inner`'s direction its part along weights that the gradient is orthogonal to.

    $$d = \mathrm{inner}(g), \qquad u_j = \begin{cases}
      d_j - \langle \hat w_j, d_j \rangle \hat w_j
      & \max_j |\cos(g_j, w_j)| < \delta / \sqrt{\mathrm{size}(w_j)} \\
      d_j & \text{else} \end{cases}, \qquad \hat w_j = w_j / \lVert w_j \rVert$$

    The `j` are the output units, indices of the last axis of a kernel `[..., in, out]`; where the
    test fails for them, the whole leaf is tested and projected as one unit. Vectors and scalars
    keep `inner`'s direction.

    Args:
        inner: any transform; its direction is projected.
        delta: how far from orthogonal a gradient may be: the bound of the cosine for a unit of
            one entry.

    Needs: params, and what `inner` needs.
    State: `0` bytes a leaf, `0` once, and the state of `inner`.
    Flops: at most `60*size + 40*cols + 40` a leaf, and those of `inner`.
    Paper: Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on
        Scale-invariant Weights", arXiv:2006.08217, Algorithm 2.
    Departure: takes any `inner`. The authors' code also decays projected weights ten times less,
        adds `1e-8` to norms, and bounds their product below by it.
    Limits: whether a leaf is projected is decided anew at every update. Stacked layers
        `[layers, in, out]` are one leaf: use `jax.vmap`.

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
        direction, state = inner.update(numbers.read(updates), state, params, **extra)

        def project(d: jax.Array, g: jax.Array, w: jax.Array) -> jax.Array:
            if g.ndim < 2:
                return d
            return tangent(d.astype(g.dtype), g, w.astype(g.dtype), delta)

        u = jax.tree.map(project, direction, numbers.wide(updates), params)
        return numbers.like(u, updates), state

    return transform(init, update)


def tangent(d: jax.Array, g: jax.Array, w: jax.Array, delta: Scalar) -> jax.Array:
    """`d` without its part along `w`, unit by unit or for the whole leaf; else `d`."""
    delta = jnp.asarray(delta, g.dtype)
    d, g, w = numbers.opaque((d, g, w))
    g_norms, w_norms, cosines, along = products(d, g, w)

    g_units = tree.ratio(g_norms, norms.along(g_norms, -1))
    w_units = tree.ratio(w_norms, norms.along(w_norms, -1))
    # of the leaf, from those of its units
    cosine = jnp.sum(g_units * w_units * cosines)
    along_leaf = jnp.sum(w_units * along) * w_units

    rows = max(math.prod(g.shape[:-1]), 1)
    of_units = jnp.max(jnp.abs(cosines), initial=0) < delta / rows**0.5
    of_leaf = jnp.abs(cosine) < delta / max(g.size, 1) ** 0.5
    parallel = jnp.where(of_units, along, jnp.where(of_leaf, along_leaf, 0))
    return d - parallel * (w * numbers.inverse(w_norms))


def products(d: jax.Array, g: jax.Array, w: jax.Array) -> list[jax.Array]:
    """Norms of the units of `g` and `w`, their cosines, and the products of `d` with units of `w`.

    If sums of squares are exact, as for most gradients, so are those of products, and each is one
    pass over the arrays as they are. If not, the arrays are normalized first.
    """
    units = tuple(range(g.ndim - 1))

    def dot(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(x * y, units, keepdims=True)

    gg, ww, dd, gw, dw = dot(g, g), dot(w, w), dot(d, d), dot(g, w), dot(d, w)

    def as_they_are() -> list[jax.Array]:
        g_norms, w_norms = jnp.sqrt(gg), jnp.sqrt(ww)
        return [g_norms, w_norms, gw / g_norms / w_norms, dw / w_norms]

    def normalized() -> list[jax.Array]:
        finite = numbers.read(g)
        g_norms, w_norms = norms.along(finite, units), norms.along(w, units)
        unit = tree.ratio(w, w_norms)
        cosines = dot(tree.ratio(finite, g_norms), unit)
        return [g_norms, w_norms, cosines, dot(d, unit)]

    return jax.lax.cond(norms.are_exact(gg, ww, dd), as_they_are, normalized)
