"""GradNormLoRP: weight normalization, with GaLore on the directions of columns."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit import subspace
from gradkit._core import check, condition, norms, numbers, paths
from gradkit._core.factory import factory
from gradkit._core.matrix import layout
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Hyper,
    Params,
    Transform,
    Updates,
    transform,
)


class WeightNormState(NamedTuple):
    """State of `project_by_weight_norm`."""

    directions: Any  # a `SubspaceState`
    lengths: optax.OptState  # of `inner` on a tree of [*batch, 1, cols]


@factory
def project_by_weight_norm(
    inner: AnyTransform,
    *,
    rank: int = 128,
    every: int = 200,
    scale: Hyper = 1.0,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Let `inner` act on the norms of columns, and on their directions projected as by GaLore.

    With columns $w = \ell v$, $\lVert v \rVert = 1$, their gradients are

    $$g_\ell = v^T g, \qquad g_v = \ell \, (g - v v^T g)$$
    $$d_\ell = \mathrm{inner}(g_\ell), \qquad
      d_v = \mathrm{scale} \; P_t \, \mathrm{inner}(P_t^T g_v), \qquad
      u = v d_\ell + \ell \, (d_v - v v^T d_v)$$

    with the basis $P_t$ of `project_by_svd`, of $g_v$. A column holds the weights of one neuron.

    Args:
        inner: any transform; is given a tree like the parameters, of the projections of
            directions, and separately a tree of `[*batch, 1, cols]`, the norms.
        every: update interval of the projector.
        scale: factor on what `inner` returns for directions.
        rank, batch_axes: see the glossary.

    Needs: `params`, and what `inner` needs, but `inner` gets no params.
    State: `4*min(rank, rows, cols)*min(rows, cols) + 1` bytes a leaf, `4` once, and the
        state of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols) + cols` entries; what
        `inner` keeps once it keeps twice.
    Flops: at most `3*size*min(rows, cols) + 8*size*min(rank, rows, cols) + 40*size`
        a leaf, and those of `inner`.
    Paper: Huang and others, "Gradient Weight-normalized Low-rank Projection for Efficient LLM
        Training", arXiv:2412.19616, Algorithm 1.
    Departure: $v$ is normalized at every update, and the parameters move along the tangent $u$;
        the paper keeps $v$ and $\ell$ separately and multiplies them after their steps. The
        authors' code has two classes. `WeightNormGaLoreAdamW` gives the direction no factor
        $\ell$ and reads neither back into the parameters; `LowRankWeightNormAdamW`, which its
        README runs, steps $v$ by GaLore's Adam of the whole gradient, without the tangent, and
        $\ell$ by Adam of $\langle g, v / \lVert v \rVert \rangle$. This equals neither.
    Limits: a column of zeros has no direction, and does not move. A step along the tangent makes
        columns a little longer: by the square of the learning rate. An update cannot be
        differentiated through its factorizations.

    >>> tx = gk.project_by_weight_norm(optax.identity(), rank=2)  # unit columns: all of g
    >>> g, p = jnp.array([[3.0, 1.0], [0.0, 2.0]]), jnp.eye(2)
    >>> bool(jnp.allclose(tx.update(g, tx.init(p), p)[0], g, atol=1e-5))
    True
    """
    name = "project_by_weight_norm"
    inner = optax.with_extra_args_support(inner)
    directions = subspace.project(
        inner,
        rank,
        basis=subspace.svd(),
        schedule=subspace.every_n(every),
        residual=subspace.discard_residual(scale),
        batch_axes=tuple(range(len(batch_axes))),
    )

    def init(params: Params) -> WeightNormState:
        check.matrix(name, params, batch_axes)

        def zeros(p: Any, rows: int | None = None) -> jax.Array:
            batch, inputs, cols = layout.shape(p, batch_axes)
            shape = (*batch, rows or inputs, cols)
            return condition.varying_as(jnp.zeros(shape, numbers.wide_dtype(p)), p)

        params = paths.unboxed(params)
        vs = jax.tree.map(zeros, params)
        lengths = jax.tree.map(lambda p: zeros(p, rows=1), params)
        return WeightNormState(directions.init(vs), inner.init(lengths))

    def update(
        updates: Updates, state: WeightNormState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, WeightNormState]:
        check.given(name, params)
        leaves, boxed = jax.tree.flatten(updates)
        structure = jax.tree.structure(paths.unboxed(updates))
        dtypes = [p.dtype for p in jax.tree.leaves(state.directions.bases)]

        def matrices(t: Any) -> list[jax.Array]:
            xs = [layout.as_matrix(x, batch_axes) for x in jax.tree.leaves(t)]
            return [x.astype(dtype) for x, dtype in zip(xs, dtypes)]

        gs, ws = matrices(numbers.read(updates)), matrices(numbers.wide(params))
        lengths = [norms.along(w, -2) for w in ws]
        vs = [w / jnp.where(n > 0, n, 1) for w, n in zip(ws, lengths)]
        g_lengths = [jnp.sum(v * g, -2, keepdims=True) for v, g in zip(vs, gs)]
        g_vs = [n * (g - v * s) for n, g, v, s in zip(lengths, gs, vs, g_lengths)]
        d_v, directions_state = directions.update(
            structure.unflatten(g_vs), state.directions, None, **extra
        )
        d_length, lengths_state = inner.update(
            structure.unflatten(g_lengths), state.lengths, None, **extra
        )

        def tangent(
            x: jax.Array, v: jax.Array, n: jax.Array, d_v: jax.Array, d_n: jax.Array
        ) -> jax.Array:
            along = jnp.sum(v * d_v, -2, keepdims=True)
            u = v * d_n + n * (d_v - v * along)
            return layout.like(u.astype(v.dtype), x, batch_axes)

        moves = jax.tree.leaves(d_v), jax.tree.leaves(d_length)
        u = boxed.unflatten(map(tangent, leaves, vs, lengths, *moves))
        return numbers.like(u, updates), WeightNormState(
            directions_state, lengths_state
        )

    return transform(init, update)
