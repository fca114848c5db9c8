"""GaLore: any transform, in the few directions where the gradient is largest."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import batch, check, linalg, tree
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Params,
    Scalar,
    Transform,
    Updates,
    transform,
)


class SVDState(NamedTuple):
    """The subspaces, and what `inner` remembers in them."""

    step: jax.Array  # updates so far, int32 []
    bases: tuple[jax.Array, ...]  # one a leaf: [*batch, small side, rank], orthonormal
    inner: optax.OptState


def project_by_svd(
    inner: AnyTransform,
    rank: int = 128,
    every: int = 200,
    scale: Scalar = 0.25,
    batch_axes: batch.Axes = (),
) -> Transform:
    r"""Let `inner` see each matrix in the directions where it is largest, and act in those.

    $$P_t = \text{first rank left singular vectors of } g_t
      \text{ if every divides } t - 1, \text{ else } P_{t-1}$$
    $$u_t = \mathrm{scale} \; P_t \, \mathrm{inner}(P_t^T g_t)$$

    for a $g$ with no more rows than columns; a tall one is turned on its side before, and
    back after.

    Args:
        inner: any transform; sees a tuple of `[*batch, rank, large side]`, one a leaf.
        rank: directions kept, at most the small side.
        every: updates between two looks at the gradient's singular vectors.
        scale: times what `inner` returns.
        batch_axes: axes that number matrices, such as `(0,)` for scanned layers. Of the
            others the last is the columns, and the rest are the rows.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols)*min(rows, cols)` bytes a leaf, `4` once, and the state of
        `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `16*size*min(rows, cols) + 16*size` a leaf, and those of `inner`.
    Paper: Zhao and others, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
        Projection", arXiv:2403.03507, Algorithm 1.
    Departure: singular vectors come from the eigenvectors of $g g^T$, which in float32 are
        arbitrary where singular values are under about 1/3000 of the largest. Signs are
        fixed: the entry of largest size in each vector is positive. As in the release, what
        `inner` remembers is kept when the basis changes, and read in the new one.
    Limits: the step that renews the bases costs an eigendecomposition a matrix. A gradient
        with no component in the basis gives no update.

    >>> tx = gk.project_by_svd(optax.identity(), rank=1, scale=1.0)
    >>> g = jnp.outer(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0, 0.0]))
    >>> bool(jnp.allclose(tx.update(g, tx.init(g))[0], g, atol=1e-5))  # rank 1 already
    True
    """
    if not isinstance(rank, jax.Array):  # as inject_hyperparams makes it; init reads it
        check.count("project_by_svd", rank=rank)
    check.positive("project_by_svd", every=every)
    check.nonnegative("project_by_svd", scale=scale)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SVDState:
        check.matrix("project_by_svd", params, batch_axes)
        bases, low = batch.subspaces(params, rank, batch_axes)
        return SVDState(jnp.zeros([], jnp.int32), bases, inner.init(low))

    def update(
        updates: Updates, state: SVDState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, SVDState]:
        del params
        leaves, structure = jax.tree.flatten(tree.read(updates))
        gs = [
            batch.wide(g, batch_axes).astype(p.dtype)
            for g, p in zip(leaves, state.bases)
        ]
        renew = state.step % every == 0
        bases = linalg.renew_bases(renew, state.bases, gs)
        low = tuple(p.mT @ g for p, g in zip(bases, gs))
        seen, inner_state = inner.update(low, state.inner, None, **extra)
        directions = jax.tree.leaves(seen)
        u = structure.unflatten(
            batch.unwide((scale * (p @ d)).astype(p.dtype), g, batch_axes)
            for p, d, g in zip(bases, directions, leaves)
        )
        return tree.like(u, updates), SVDState(state.step + 1, bases, inner_state)

    return transform(init, update)
