"""Dion: low-rank orthonormalized updates, with error feedback into the momentum."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, derivative, numbers, paths, random, tree
from gradkit._core.condition import on_axes_of
from gradkit._core.factory import factory
from gradkit._core.matrix import layout, linalg, stacks
from gradkit._core.norms import along
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class DionState(NamedTuple):
    """State of `project_by_dion`: the momentum, and the factor $Q$ of its low-rank part."""

    mu: Updates  # the momentum with its error feedback, like the parameters
    bases: Updates  # Q of every leaf, [*batch, rows, rank], columns of norm 1


@factory
def project_by_dion(
    rank: int = 768,
    *,
    decay: Hyper = 0.95,
    eps: Hyper = 1e-8,
    consistent_rms: Hyper | None = None,
    key: random.Key = 0,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Orthonormalize a low-rank approximation of each matrix's momentum, with error feedback.

    $$B_t = M_{t-1} + g_t, \qquad P_t = \mathrm{orth}(B_t^T Q_{t-1}), \qquad
      R_t = B_t P_t$$
    $$M_t = B_t - (1 - \mathrm{decay}) R_t P_t^T, \qquad
      Q_t = \frac{R_t}{\lVert R_t \rVert_\mathrm{columns} + \epsilon}, \qquad
      u_t = \sqrt{\mathrm{cols} / \mathrm{rows}} \; Q_t P_t^T$$

    where $\mathrm{orth}$ is the orthonormal factor of a QR decomposition, and $Q_0$ is random.
    What the low-rank part lacks stays in the momentum, and comes out later.

    Args:
        rank: rank of an update, at most the shorter side of a matrix.
        decay: the fraction of the low-rank part that stays in the momentum.
        eps: added to the norms of columns of $R$, in units of the gradient.
        consistent_rms: where given, the RMS of the direction is about this, such as 0.2 to be as
            large as AdamW's: $\mathrm{consistent\_rms} \sqrt{\mathrm{rows} \,
            \mathrm{cols} / \mathrm{rank}}$ stands in place of the root above.
        key: a seed or a key for $Q_0$, which depends only on it and on a leaf's shape.
        batch_axes: see the glossary.

    State: `4*size + 4*rows*min(rank, rows, cols)` bytes a leaf, `0` once.
    Flops: at most `9*size*min(rank, rows, cols) + 32*size` a leaf, and a QR decomposition.
    Paper: Ahn, Xu, Abreu, Fan, Magakyan, Sharma, Zhan and Langford, "Dion: Distributed
        Orthonormalized Updates", arXiv:2504.05295, Algorithm 1.
    Departure: kernels are `[..., in, out]` here, the paper's matrices transposed. A column of $R$
        that is zero, or under 128 roundings of the longest, gives no update and leaves its column
        of $Q$ unchanged; in the paper it would stay zero for ever, or come out as noise of full
        size. The authors' code can orthonormalize by a randomized Cholesky QR. `consistent_rms`
        is Moonlight's, arXiv:2502.16982, extended to any rank.
    Limits: matrices only, and not those whose rows are looked up. $Q_t$ has columns of norm
        one that need not be orthogonal: the update's spectral norm is at most
        $\sqrt{\mathrm{rank}}$ times its scale. An update cannot be differentiated.

    >>> tx, g = gk.project_by_dion(rank=1), jnp.outer(jnp.array([3.0, 4.0]), jnp.ones(2))
    >>> u, _ = tx.update(g, tx.init(g))  # of rank 1 already: its polar factor
    >>> bool(jnp.allclose(u * 2**0.5, g / 5, atol=1e-6))
    True
    """
    if not isinstance(rank, jax.Array):  # under optax.inject_hyperparams
        check.count("project_by_dion", rank=rank)
    check.interval("project_by_dion", "[0, 1)", decay=decay)
    check.nonnegative("project_by_dion", eps=eps, key=key)
    if consistent_rms is not None:
        check.positive("project_by_dion", consistent_rms=consistent_rms)

    def init(params: Params) -> DionState:
        check.matrix("project_by_dion", params, batch_axes)
        check.concrete("project_by_dion", rank=rank)

        def start(p: jax.Array) -> jax.Array:
            batch, rows, cols = layout.shape(p, batch_axes)
            shape = (*batch, rows, min(int(rank), rows, cols))
            q = random.normals(random.typed(key), shape, numbers.wide_dtype(p))
            return on_axes_of(q / along(q, -2), p)

        return DionState(tree.zeros(params), jax.tree.map(start, paths.unboxed(params)))

    def update(
        updates: Updates, state: DionState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, DionState]:
        del params, extra
        g = numbers.read(updates)
        total = jax.tree.map(lambda m, g: m + g.astype(m.dtype), state.mu, g)
        total = jax.tree.map(
            lambda x: numbers.summable(x, x.size), paths.unboxed(total)
        )
        with jax.default_matmul_precision("highest"):
            xs, structure = jax.tree.flatten(
                jax.tree.map(projected, total, state.bases)
            )
            xs = derivative.refuse("project_by_dion", xs)
            ps = structure.unflatten(stacks.map_shapes(linalg.orthonormal, xs))
            parts = jax.tree.map(part, total, ps, state.bases)
        mu, u, bases = tree.unzip(total, parts, 3)
        mu, u = paths.boxed(mu, updates), paths.boxed(u, updates)
        return numbers.like(u, updates), DionState(mu, bases)

    def projected(total: jax.Array, q: jax.Array) -> jax.Array:
        """`B^T Q`."""
        return layout.as_matrix(total, batch_axes).mT @ q

    def part(
        total: jax.Array, p: jax.Array, q: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The momentum that is left, the update, and the new basis."""
        b = layout.as_matrix(total, batch_axes)
        rows, cols = b.shape[-2:]
        r = b @ p
        norms = along(r, -2)
        largest = jnp.max(norms, -1, keepdims=True, initial=0)
        significant = linalg.above_rounding(norms, largest) > 0
        new = jnp.where(significant, r / jnp.where(significant, norms + eps, 1), 0)
        mu = b - (1 - decay) * (r @ p.mT)
        if consistent_rms is None:
            size = (cols / max(1, rows)) ** 0.5
        else:
            size = consistent_rms * (rows * cols / max(1, r.shape[-1])) ** 0.5
        u = (size * (new @ p.mT)).astype(b.dtype)
        like = lambda x: layout.like(x, total, batch_axes)
        return (
            like(mu.astype(b.dtype)),
            like(u),
            jnp.where(significant, new, q).astype(q.dtype),
        )

    return transform(init, update)
