"""SOAP: Adam in the eigenbases of Shampoo's covariances."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, derivative, numbers, paths, rate, shard, tree
from gradkit._core.condition import when
from gradkit._core.factory import factory
from gradkit._core.matrix import kronecker, layout, linalg, roots
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Rate,
    Transform,
    Updates,
    transform,
)


class SOAPState(NamedTuple):
    """State of `precondition_by_soap`: Adam's moments in the eigenbases, and the covariances."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # EMA of the gradient in the bases, like the parameters
    nu: Updates  # EMA of the squared gradient in the bases, like the parameters
    grams: kronecker.Sides  # L, R: EMAs of g g^T and of g^T g
    bases: kronecker.Sides  # Q^T: about their eigenvectors, as rows


@factory
def precondition_by_soap(
    b1: Hyper = 0.95,
    *,
    b2: Hyper = 0.95,
    decay: Hyper = 0.95,
    eps: Rate = 1e-8,
    every: int = 10,
    max_size: int = 10000,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Apply Adam to each matrix in the eigenbases of Shampoo's two covariances.

    $$g' = Q_L^T g_t Q_R, \qquad u_t = Q_L \frac{m_t / (1 - b_1^{t-1})}
      {\sqrt{v_t / (1 - b_2^{t-1})} + \epsilon} Q_R^T$$
    $$m_t = b_1 m_{t-1} + (1 - b_1) g', \qquad v_t = b_2 v_{t-1} + (1 - b_2) g'^2$$
    $$L_t = \mathrm{decay} \, L_{t-1} + (1 - \mathrm{decay}) \, g_t g_t^T, \qquad
      R_t = \mathrm{decay} \, R_{t-1} + (1 - \mathrm{decay}) \, g_t^T g_t$$

    The first gradient gives no step, but the bases: the eigenvectors of $L_1$ and $R_1$. When
    `every` divides $t - 1$ they become those of $L_t Q_L$ made orthonormal, after $Q_L$ is
    sorted by $\mathrm{diag}(Q_L^T L_t Q_L)$; $v$ is sorted likewise, and $m$ is rotated.

    Args:
        b1: decay of the EMA of the gradient.
        b2: decay of the EMA of the squared gradient.
        decay: decay of the EMAs of the covariances.
        eps: added to the root, in units of the gradient; a number or a schedule of the steps
            made before.
        every: updates between two renewals of the bases.
        max_size: a longer side keeps its own basis.
        batch_axes: see the glossary.

    State: `8*size + (8*((rows <= max_size)*rows**2 + (cols <= max_size)*cols**2)
        if ndim > 1 and min(rows, cols) > 1 else 8*(ndim > 1))` bytes a leaf, `4` once.
    Flops: at most `14*size*(rows + cols) + 6*(rows**3 + cols**3) + 40*size + 20*(rows**2
        + cols**2) + 60` a leaf, beside the orthonormalizations.
    Paper: Vyas and others, "SOAP: Improving and Stabilizing Shampoo using Adam",
        arXiv:2409.11321, Algorithms 3 and 4.
    Departure: a tensor is a matrix, not one side per axis. In $g'$ and in the rotated $m$,
        entries under 128 roundings of the norms of their row and column, and of the root mean
        square, count as zero: the authors' code enlarges rounding errors like all else, and moves
        weights that have no gradient. Otherwise the numbers are those of the authors' code: the
        first gradient makes no step, and leaves of fewer than two axes get Adam, one step late
        too; here so do leaves of one row or column. That code can also merge axes, normalize
        directions, and leave out bias correction.
    Limits: 2 covariances and 2 bases of each matrix are kept. The first update costs an
        eigendecomposition a side, and every one that renews the bases, a QR decomposition.
        Explicitly sharded leaves are gathered first. Rounding rotates eigenvectors of close
        eigenvalues into each other, and Adam's directions with them. Bases cannot be
        differentiated: apply `jax.lax.stop_gradient` to the state that is given to an update.

    >>> tx, p = gk.precondition_by_soap(), jnp.zeros((3, 2))
    >>> u, state = tx.update(jnp.ones((3, 2)), tx.init(p))  # the first only sets the bases
    >>> float(jnp.abs(u).max()), round(float(tx.update(jnp.ones((3, 2)), state)[0].mean()), 3)
    (0.0, 0.408)
    """
    name = "precondition_by_soap"
    check.interval(name, "[0, 1)", b1=b1, b2=b2, decay=decay)
    check.nonnegative(name, eps=eps)
    check.positive(name, every=every, max_size=max_size)

    def init(params: Params) -> SOAPState:
        mu, nu = tree.zeros(params), tree.zeros(params)
        check.concrete(name, max_size=max_size)
        grams, bases = (kronecker.zeros(params, max_size, batch_axes) for _ in range(2))
        return SOAPState(jnp.zeros([], jnp.int32), mu, nu, grams, bases)

    def update(
        updates: Updates, state: SOAPState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, SOAPState]:
        del params, extra
        g, moves = numbers.read_square_summable(updates), state.count > 0

        def first(kept: InBases) -> InBases:
            grams = derivative.refuse(name, kept.grams)
            return kept._replace(bases=kronecker.map_squares(roots.eigenbasis, grams))

        def renew(kept: InBases) -> InBases:
            old = kept.bases
            new, order = power_step(*derivative.refuse(name, (kept.grams, old)))
            m = multiply(kronecker.transposed(old).rows, kept.mu, old.cols)
            mu = multiply(new.rows, m, kronecker.transposed(new).cols)
            mu = kronecker.above_rounding(mu, new, batch_axes)
            return InBases(kept.grams, new, mu, permute(kept.nu, order, batch_axes))

        due = moves & ((state.count - 1) % every == 0)
        kept = InBases(state.grams, state.bases, state.mu, state.nu)
        kept = when(state.count == 1, first, kept)
        grams, bases, mu, nu = when(due & (state.count > 1), renew, kept)
        back = kronecker.transposed(bases)
        low = multiply(bases.rows, g, back.cols)
        low = kronecker.above_rounding(low, bases, batch_axes)
        low = jax.tree.map(lambda x: jnp.where(moves, x, 0), low)
        mu = tree.ema(b1, mu, low)
        nu = tree.ema_of_squares(b2, nu, low)
        made = jnp.maximum(state.count, 1)  # steps, this one too
        floor = rate.at(eps, made - 1)
        d = jax.tree.map(
            lambda m, v: tree.ratio(m, derivative.root(v) + floor),
            tree.bias_corrected(mu, b1, made),
            tree.bias_corrected(nu, b2, made),
        )
        u = kronecker.multiply(back.rows, d, bases.cols, batch_axes)
        grams = kronecker.ema_of_grams(decay, grams, g, batch_axes)
        step = numbers.increment(state.count)
        return numbers.like(u, updates), SOAPState(step, mu, nu, grams, bases)

    def multiply(rows: Any, updates: Updates, cols: Any) -> Updates:
        """Multiply in full precision, so that zeros can be told from rounding errors."""
        with jax.default_matmul_precision("highest"):
            return kronecker.multiply(rows, updates, cols, batch_axes)

    return transform(init, update)


class InBases(NamedTuple):
    """The parts of the state that a renewal of the bases reads or changes."""

    grams: kronecker.Sides
    bases: kronecker.Sides
    mu: Updates
    nu: Updates


def power_step(
    grams: kronecker.Sides, bases: kronecker.Sides
) -> tuple[kronecker.Sides, kronecker.Sides]:
    """Bases after one step of power iteration, and the permutation that sorted their vectors.

    They are sorted by the eigenvalues estimated in the old bases, the largest first.
    """

    def order(q: jax.Array, moved: jax.Array) -> jax.Array:
        return jnp.argsort(jnp.sum(q * moved, -1), axis=-1, descending=True)

    def sort(moved: jax.Array, order: jax.Array) -> jax.Array:
        return jnp.take_along_axis(moved, order[..., None], -2)

    moved = jax.tree.map(roots.power_product, grams, bases)
    orders = jax.tree.map(order, bases, moved)
    moved = jax.tree.map(roots.or_before, moved, bases)
    sorted_ = jax.tree.map(sort, moved, orders)
    return kronecker.map_squares(linalg.orthonormal_rows, sorted_), orders


def permute(
    updates: Updates, orders: kronecker.Sides, batch_axes: layout.Axes
) -> Updates:
    """Permute rows and columns of every leaf's matrices; a side without an order stays.

    Matrices are replicated first, since XLA fails to take columns of shards.
    """

    def leaf(x: jax.Array, rows: Any, cols: Any) -> jax.Array:
        if kronecker.is_none(rows) and kronecker.is_none(cols):
            return x
        y = shard.replicated(layout.as_matrix(x, batch_axes))
        if not kronecker.is_none(cols):
            y = jnp.take_along_axis(y, cols[..., None, :], -1)
        if not kronecker.is_none(rows):
            y = jnp.take_along_axis(y, rows[..., :, None], -2)
        return layout.like(shard.replicated(y), x, batch_axes)

    return paths.map_unboxed(leaf, updates, *orders)
