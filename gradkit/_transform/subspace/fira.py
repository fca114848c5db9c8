"""Fira: GaLore, and what GaLore leaves out, scaled as `inner` scaled what it saw."""

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


class FiraState(NamedTuple):
    """The subspaces, the size of what lay outside them, and what `inner` remembers."""

    step: jax.Array  # updates so far, int32 []
    bases: tuple[jax.Array, ...]  # one a leaf: [*batch, small side, rank], orthonormal
    outside: tuple[jax.Array, ...]  # one a leaf: [*batch, 1, 1], norms of the last s
    inner: optax.OptState


def project_by_fira(
    inner: AnyTransform,
    rank: int = 128,
    every: int = 200,
    scale: Scalar = 0.25,
    growth: Scalar = 1.01,
    eps: Scalar = 1e-8,
    batch_axes: batch.Axes = (),
) -> Transform:
    r"""Let `inner` act where each matrix is largest, and the rest follow at `inner`'s scale.

    $$r_t = P_t^T g_t, \quad d_t = \mathrm{inner}(r_t), \quad
      s_t = (g_t - P_t r_t) \, \mathrm{diag}\left(
      \frac{\lVert d_t[:, i] \rVert}{\lVert r_t[:, i] \rVert + \epsilon}\right)$$
    $$s_t \leftarrow s_t \min(1, \mathrm{growth} \, \lVert s_{t-1} \rVert / \lVert s_t \rVert),
      \qquad u_t = \mathrm{scale} \, (P_t d_t + s_t)$$

    with the basis $P_t$ of `project_by_svd`: the first `rank` left singular vectors of $g_t$,
    renewed where `every` divides $t - 1$; tall matrices are turned on their side before, and
    back after.

    Args:
        inner: any transform; sees a tuple of `[*batch, rank, large side]`, one a leaf.
        rank: directions in which `inner` acts, at most the small side.
        every: updates between two looks at the gradient's singular vectors.
        scale: times the whole direction.
        growth: how much longer $s$ may get in one update, as a factor.
        eps: added to the norms of the columns of $r$, in units of the gradient.
        batch_axes: axes that number matrices, such as `(0,)` for scanned layers. Of the
            others the last is the columns, and the rest are the rows.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols)*min(rows, cols) + 4` bytes a leaf, `4` once, and the state
        of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `16*size*min(rows, cols) + 48*size` a leaf, and those of `inner`.
    Paper: Chen and others, "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
        Constraint?", arXiv:2410.01623, Algorithm 1.
    Departure: $s$ may grow freely from zero, where the paper's would restart at $\epsilon$
        and need thousands of updates. The release subtracts $\mathrm{scale} P r$ instead of
        $P r$, leaves $s$ unscaled, and limits it before debiasing; this follows the paper.
        The basis is that of `project_by_svd`, with its departures.
    Limits: the step that renews the bases costs an eigendecomposition a matrix. A column of
        $r$ near zero beside a large rest makes a long $s$: nothing limits the first one.

    >>> tx = gk.project_by_fira(optax.identity(), rank=1, scale=1.0)
    >>> g = jnp.diag(jnp.array([3.0, 2.0]))  # what inner does not see needs a scale
    >>> tx.update(g, tx.init(g))[0].tolist()
    [[3.0, 0.0], [0.0, 0.0]]
    """
    if not isinstance(rank, jax.Array):  # as inject_hyperparams makes it; init reads it
        check.count("project_by_fira", rank=rank)
    check.positive("project_by_fira", every=every, growth=growth)
    check.nonnegative("project_by_fira", scale=scale, eps=eps)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> FiraState:
        check.matrix("project_by_fira", params, batch_axes)
        bases, low = batch.subspaces(params, rank, batch_axes)
        outside = tuple(jnp.zeros((*p.shape[:-2], 1, 1), p.dtype) for p in bases)
        return FiraState(jnp.zeros([], jnp.int32), bases, outside, inner.init(low))

    def update(
        updates: Updates, state: FiraState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, FiraState]:
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
        steps = [
            combine(*leaf) for leaf in zip(bases, low, directions, gs, state.outside)
        ]
        u = structure.unflatten(
            batch.unwide(u, g, batch_axes) for (u, _), g in zip(steps, leaves)
        )
        outside = tuple(norm for _, norm in steps)
        new_state = FiraState(state.step + 1, bases, outside, inner_state)
        return tree.like(u, updates), new_state

    def combine(
        p: jax.Array, r: jax.Array, d: jax.Array, g: jax.Array, last: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        size = linalg.norms(r, -2) + eps
        s = (g - p @ r) * jnp.where(size > 0, linalg.norms(d, -2) / size, 0)
        norm = linalg.norms(s, (-2, -1))
        kept = jnp.where(last > 0, jnp.minimum(growth * last, norm), norm)
        shrink = jnp.where(norm > 0, kept / norm, 1)
        u = scale * (p @ d + shrink * s)
        return u.astype(g.dtype), kept.astype(last.dtype)

    return transform(init, update)
