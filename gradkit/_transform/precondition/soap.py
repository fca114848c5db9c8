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
    grams: kronecker.Sides  # the covariances L and R: EMAs of g g^T and of g^T g
    bases: kronecker.Sides  # Q^T: their approximate eigenvectors, as rows


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

    The first update is zero: its gradient gives the first bases, the eigenvectors of $L_1$ and
    $R_1$. If `every` divides $t - 1$, the columns of $Q_L$ are sorted by
    $\mathrm{diag}(Q_L^T L_t Q_L)$, and the next $Q_L$ is $L_t Q_L$ made orthonormal. $v$ is
    sorted likewise, and $m$ is rotated into the new bases.

    Args:
        b1: decay of the EMA of the gradient.
        b2: decay of the EMA of the squared gradient.
        decay: decay of the EMAs of the covariances.
        eps: added to the root, in units of the gradient; a number or a schedule of the steps
            made before.
        every: updates between two renewals of the bases.
        max_size: the longest side that is rotated; a longer one has no covariance.
        batch_axes: see the glossary.

    State: `8*size + (8*((rows <= max_size)*rows**2 + (cols <= max_size)*cols**2)
        if ndim > 1 and min(rows, cols) > 1 else 8*(ndim > 1))` bytes a leaf, `4` once.
    Flops: at most `14*size*(rows + cols) + 6*(rows**3 + cols**3) + 40*size + 20*(rows**2
        + cols**2) + 60` a leaf, beside the orthonormalizations.
    Paper: Vyas and others, "SOAP: Improving and Stabilizing Shampoo using Adam",
        arXiv:2409.11321, Algorithms 3 and 4.
    Departure: a tensor is seen as a matrix, without a covariance for each axis. In $g'$ and in
        the rotated $m$, entries that may be rounding errors count as zero: those of at most 128
        eps times the norm of their row, that of their column and the root mean square, added. The
        authors' code enlarges rounding errors, and so moves weights that have no gradient.
        Otherwise the numbers are those of the authors' code: the first update is zero, also for
        leaves of fewer than two axes, which get Adam. Here leaves of one row or column get it
        too. That code can also merge axes, normalize directions, and leave out bias correction.
    Limits: 2 covariances and 2 bases of each matrix are kept. The first bases cost an
        eigendecomposition a side, and each renewal a QR decomposition.
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

        def first_bases(kept: Renewed) -> Renewed:
            grams = derivative.refuse(name, kept.grams)
            return kept._replace(bases=kronecker.map_squares(roots.eigenbasis, grams))

        def renew(kept: Renewed) -> Renewed:
            old = kept.bases
            new, order = power_step(*derivative.refuse(name, (kept.grams, old)))
            m = multiply(kronecker.transposed(old).rows, kept.mu, old.cols)
            mu = multiply(new.rows, m, kronecker.transposed(new).cols)
            mu = kronecker.above_rounding(mu, new, batch_axes)
            return Renewed(kept.grams, new, mu, permute(kept.nu, order, batch_axes))

        due = moves & ((state.count - 1) % every == 0)
        kept = Renewed(state.grams, state.bases, state.mu, state.nu)
        kept = when(state.count == 1, first_bases, kept)
        grams, bases, mu, nu = when(due & (state.count > 1), renew, kept)
        back = kronecker.transposed(bases)
        rotated = multiply(bases.rows, g, back.cols)
        rotated = kronecker.above_rounding(rotated, bases, batch_axes)
        rotated = jax.tree.map(lambda x: jnp.where(moves, x, 0), rotated)
        mu = tree.ema(b1, mu, rotated)
        nu = tree.ema_of_squares(b2, nu, rotated)
        steps = jnp.maximum(state.count, 1)  # of Adam, with this one
        added = rate.at(eps, steps - 1)
        d = jax.tree.map(
            lambda m, v: tree.ratio(m, derivative.root(v) + added),
            tree.bias_corrected(mu, b1, steps),
            tree.bias_corrected(nu, b2, steps),
        )
        u = kronecker.multiply(back.rows, d, bases.cols, batch_axes)
        grams = kronecker.ema_of_grams(decay, grams, g, batch_axes)
        count = numbers.increment(state.count)
        return numbers.like(u, updates), SOAPState(count, mu, nu, grams, bases)

    def multiply(rows: Any, updates: Updates, cols: Any) -> Updates:
        """Multiply in full precision, so that zeros can be told from rounding errors."""
        with jax.default_matmul_precision("highest"):
            return kronecker.multiply(rows, updates, cols, batch_axes)

    return transform(init, update)


class Renewed(NamedTuple):
    """The parts of the state that a renewal of the bases reads or changes."""

    grams: kronecker.Sides
    bases: kronecker.Sides
    mu: Updates
    nu: Updates


def power_step(
    grams: kronecker.Sides, bases: kronecker.Sides
) -> tuple[kronecker.Sides, kronecker.Sides]:
    """Bases after one step of power iteration, and the permutations that sorted the old ones.

    Vectors are sorted by the eigenvalues estimated in the old bases, the largest first.
    """

    def order_of(q: jax.Array, moved: jax.Array) -> jax.Array:
        return jnp.argsort(jnp.sum(q * moved, -1), axis=-1, descending=True)

    def sort(moved: jax.Array, order: jax.Array) -> jax.Array:
        return jnp.take_along_axis(moved, order[..., None], -2)

    moved = jax.tree.map(roots.power_product, grams, bases)
    orders = jax.tree.map(order_of, bases, moved)
    moved = jax.tree.map(roots.or_before, moved, bases)
    sorted_ = jax.tree.map(sort, moved, orders)
    return kronecker.map_squares(linalg.orthonormal_rows, sorted_), orders


def permute(
    updates: Updates, orders: kronecker.Sides, batch_axes: layout.Axes
) -> Updates:
    """Permute rows and columns of every leaf's matrices; a side whose order is `NONE` stays.

    Matrices are replicated first, since XLA fails to compile permutations of some shards.
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
