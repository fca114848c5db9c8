"""SOAP: Adam in the eigenbases of Shampoo's covariances."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, derivative, numbers, rate, tree
from gradkit._core.condition import when
from gradkit._core.factory import factory
from gradkit._core.matrix import kronecker, layout, roots
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
    """What Adam remembers in the bases, and what these are made from."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # average gradient in the bases, like the parameters
    nu: Updates  # average squared gradient in the bases, like the parameters
    grams: kronecker.Sides  # averages of g g^T and of g^T g
    bases: kronecker.Sides  # about their eigenvectors, as rows, as last used


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
    r"""Do as Adam does, but in the slowly turning eigenbases of each matrix's covariances.

    $$g' = Q_L^T g_t Q_R, \qquad u_t = Q_L \frac{m_t / (1 - b_1^{t-1})}
      {\sqrt{v_t / (1 - b_2^{t-1})} + \epsilon} Q_R^T$$
    $$m_t = b_1 m_{t-1} + (1 - b_1) g', \qquad v_t = b_2 v_{t-1} + (1 - b_2) g'^2$$
    $$L_t = \mathrm{decay} \, L_{t-1} + (1 - \mathrm{decay}) \, g_t g_t^T, \qquad
      R_t = \mathrm{decay} \, R_{t-1} + (1 - \mathrm{decay}) \, g_t^T g_t$$

    The first gradient gives no step, but the bases: the eigenvectors of $L_1$ and $R_1$. When
    `every` divides $t - 1$ they become those of $L_t Q_L$ made orthonormal, after $Q_L$ is
    sorted by $\mathrm{diag}(Q_L^T L_t Q_L)$; $v$ is sorted likewise, and $m$ turned along.

    Args:
        b1: decay of the average gradient.
        b2: decay of the average squared gradient.
        decay: decay of the average covariances.
        eps: added to the root, in units of the gradient; a number or a schedule of the steps
            made before.
        every: updates between two turns of the bases.
        max_size: a longer side keeps its own basis.
        batch_axes: axes that number matrices, such as `(0,)` for scanned layers. Of the
            others the last is the columns, and the rest are the rows.

    State: `8*size + (8*((rows <= max_size)*rows**2 + (cols <= max_size)*cols**2)
        if ndim > 1 and min(rows, cols) > 1 else 8*(ndim > 1))` bytes a leaf, `4` once.
    Flops: at most `14*size*(rows + cols) + 6*(rows**3 + cols**3) + 40*size + 20*(rows**2
        + cols**2) + 60` a leaf, beside the orthonormalizations.
    Paper: Vyas and others, "SOAP: Improving and Stabilizing Shampoo using Adam",
        arXiv:2409.11321, Algorithms 3 and 4.
    Departure: a tensor is a matrix, not one side per axis. In the bases what is under 128
        roundings of the norms of its row and column, and of the root mean square, counts as
        zero, in $g'$ and in the turned $m$: the release makes what rounding leaves of zeros as
        large as all else, and moves weights that have no gradient. Else the release's numbers:
        as there, no step is made with the first gradient, and leaves of fewer than two axes,
        here also those of one row or column, get Adam's, one step late too. The release also
        offers to merge axes, to normalize directions, and Adam without debiasing.
    Limits: 2 covariances and 2 bases of each matrix are kept. The first update costs an
        eigendecomposition a side, and every one that turns, a QR decomposition. Explicitly
        sharded leaves are gathered first. Eigenvectors of close eigenvalues turn into each other
        with rounding, and what Adam makes of them turns too. Bases cannot be differentiated,
        so stop the gradient at the state that is given to an update.

    >>> tx, p = gk.precondition_by_soap(), jnp.zeros((3, 2))
    >>> u, state = tx.update(jnp.ones((3, 2)), tx.init(p))  # the first only sets the bases
    >>> float(jnp.abs(u).max()), round(float(tx.update(jnp.ones((3, 2)), state)[0].mean()), 3)
    (0.0, 0.408)
    """
    name = "precondition_by_soap"
    check.fraction(name, b1=b1, b2=b2, decay=decay)
    check.nonnegative(name, eps=eps)
    check.positive(name, every=every, max_size=max_size)

    def init(params: Params) -> SOAPState:
        mu, nu = tree.zeros(params), tree.zeros(params)
        check.concrete("precondition_by_soap", max_size=max_size)
        grams, bases = (kronecker.zeros(params, max_size, batch_axes) for _ in range(2))
        return SOAPState(jnp.zeros([], jnp.int32), mu, nu, grams, bases)

    def update(
        updates: Updates, state: SOAPState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, SOAPState]:
        del params, extra
        g, moves = kronecker.read(updates), state.count > 0

        def first(kept: tuple[Any, ...]) -> tuple[Any, ...]:
            grams, _, mu, nu = kept
            fixed = derivative.refuse(name, grams)
            return grams, kronecker.each(roots.eigenbasis, fixed), mu, nu

        def turn(kept: tuple[Any, ...]) -> tuple[Any, ...]:
            grams, bases, mu, nu = kept
            new, order = kronecker.power_step(*derivative.refuse(name, (grams, bases)))
            m = precise(kronecker.transposed(bases).rows, mu, bases.cols)
            mu = sound(precise(new.rows, m, kronecker.transposed(new).cols), new)
            nu = kronecker.permuted(order.rows, nu, order.cols, batch_axes)
            return grams, new, mu, nu

        due = moves & ((state.count - 1) % every == 0)
        kept = state.grams, state.bases, state.mu, state.nu
        kept = when(state.count == 1, first, kept)
        grams, bases, mu, nu = when(due & (state.count > 1), turn, kept)
        back = kronecker.transposed(bases)
        low = sound(precise(bases.rows, g, back.cols), bases)
        low = jax.tree.map(lambda x: jnp.where(moves, x, 0), low)
        mu = tree.ema(b1, mu, low)
        nu = tree.ema_of_squares(b2, nu, low)
        moved = jnp.maximum(state.count, 1)
        floor = rate.at(eps, moved - 1)
        d = jax.tree.map(
            lambda m, v: tree.ratio(m, derivative.root(v) + floor),
            tree.debias(mu, b1, moved),
            tree.debias(nu, b2, moved),
        )
        u = kronecker.between(back.rows, d, bases.cols, batch_axes)
        grams = kronecker.ema_of_grams(decay, grams, g, batch_axes)
        return numbers.like(u, updates), SOAPState(
            numbers.increment(state.count), mu, nu, grams, bases
        )

    def precise(rows: Any, updates: Updates, cols: Any) -> Updates:
        with jax.default_matmul_precision("highest"):
            return kronecker.between(rows, updates, cols, batch_axes)

    def sound(low: Updates, bases: kronecker.Sides) -> Updates:
        return kronecker.above_rounding(low, bases, batch_axes)

    return transform(init, update)
