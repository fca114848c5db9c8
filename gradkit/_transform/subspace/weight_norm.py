"""GradNormLoRP: GaLore on the directions of units, and all of their lengths."""

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
    """What is remembered of directions, and of lengths."""

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
    r"""Let `inner` see the lengths of columns, and their directions where these change most.

    With columns $w = \ell v$, $\lVert v \rVert = 1$, their gradients are

    $$g_\ell = v^T g, \qquad g_v = \ell \, (g - v v^T g)$$
    $$d_\ell = \mathrm{inner}(g_\ell), \qquad
      d_v = \mathrm{scale} \; P_t \, \mathrm{inner}(P_t^T g_v), \qquad
      u = v d_\ell + \ell \, (d_v - v v^T d_v)$$

    with the basis $P_t$ of `project_by_svd`, of $g_v$. A column is what a unit of the layer
    multiplies its inputs by.

    Args:
        inner: any transform; sees a tree like the parameters, directions with their small side
            cut to `rank`, and apart from them a tree of `[*batch, 1, cols]`, the lengths.
        rank: directions kept, at most the small side.
        every: updates between two looks at the gradient's singular vectors.
        scale: times what `inner` returns for directions.
        batch_axes: axes that number matrices, such as `(0,)` for scanned layers. Of the
            others the last is the columns, and the rest are the rows.

    Needs: `params`, and what `inner` needs, but `inner` gets no params.
    State: `4*min(rank, rows, cols)*min(rows, cols)` bytes a leaf, `4` once, and the state
        of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols) + cols` entries; what
        `inner` keeps once it keeps twice.
    Flops: at most `3*size*min(rows, cols) + 8*size*min(rank, rows, cols) + 40*size`
        a leaf, and those of `inner`.
    Paper: Huang and others, "Gradient Weight-normalized Low-rank Projection for Efficient LLM
        Training", arXiv:2412.19616, Algorithm 1.
    Departure: $v$ is made unit at every update, and the parameters move along the tangent
        $u$, where the paper keeps $v$ and $\ell$ apart and multiplies them after their steps.
        The release has two classes. `WeightNormGaLoreAdamW` gives the direction no factor
        $\ell$ and reads neither back into the parameters; `LowRankWeightNormAdamW`, which its
        README runs, steps $v$ by GaLore's Adam of the whole gradient, without the tangent, and
        $\ell$ by Adam of $\langle g, v / \lVert v \rVert \rangle$. Neither is this.
    Limits: a column of zeros has no direction, and moves by none. A tangent step lengthens columns
        a little: by the square of the learning rate. An update cannot be differentiated through its
        factorizations.

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
        subspace.svd(),
        subspace.every_n(every),
        subspace.discard_residual(scale),
        batch_axes=tuple(range(len(batch_axes))),
    )

    def init(params: Params) -> WeightNormState:
        check.matrix(name, params, batch_axes)

        def zeros(p: Any, rows: int | None = None) -> jax.Array:
            front, inputs, cols = layout.shape(p, batch_axes)
            shape = (*front, rows or inputs, cols)
            return condition.varying_as(jnp.zeros(shape, numbers.wide_dtype(p)), p)

        each = lambda rows: jax.tree.map(
            lambda p: zeros(p, rows), paths.unboxed(params)
        )
        return WeightNormState(directions.init(each(None)), inner.init(each(1)))

    def update(
        updates: Updates, state: WeightNormState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, WeightNormState]:
        check.given(name, params)
        leaves, structure = jax.tree.flatten(updates)
        bare = paths.unboxed(updates)
        like_state = jax.tree.structure(bare).unflatten
        kept = jax.tree.leaves(state.directions.bases)
        upright = lambda t: [
            layout.as_matrix(x, batch_axes).astype(p.dtype)
            for x, p in zip(jax.tree.leaves(t), kept)
        ]
        gs, ws = upright(numbers.read(updates)), upright(numbers.wide(params))
        lengths = [norms.along(w, -2) for w in ws]
        vs = [w / jnp.where(n > 0, n, 1) for w, n in zip(ws, lengths)]
        slopes = [jnp.sum(v * g, -2, keepdims=True) for v, g in zip(vs, gs)]
        turns = [n * (g - v * s) for n, v, g, s in zip(lengths, vs, gs, slopes)]
        turn, directions_state = directions.update(
            like_state(turns), state.directions, None, **extra
        )
        grow, lengths_state = inner.update(
            like_state(slopes), state.lengths, None, **extra
        )
        moves = jax.tree.leaves(turn), jax.tree.leaves(grow)

        def back(
            v: jax.Array, n: jax.Array, d: jax.Array, longer: jax.Array
        ) -> jax.Array:
            along = jnp.sum(v * d, -2, keepdims=True)
            return v * longer + n * (d - v * along)

        u = structure.unflatten(
            layout.like(back(*parts).astype(g.dtype), x, batch_axes)
            for *parts, g, x in zip(vs, lengths, *moves, gs, leaves)
        )
        return numbers.like(u, updates), WeightNormState(
            directions_state, lengths_state
        )

    return transform(init, update)
