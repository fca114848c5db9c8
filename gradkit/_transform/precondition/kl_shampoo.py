"""KL-Shampoo: each side has the covariance of gradients whose other side is whitened."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, derivative, numbers, paths, tree
from gradkit._core.condition import on_axes_of, when
from gradkit._core.factory import factory
from gradkit._core.matrix import kronecker, layout, linalg, roots
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class KLShampooState(NamedTuple):
    """State of `precondition_by_kl_shampoo`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # EMA of the gradient, like the parameters
    grams: kronecker.Sides  # S: EMAs of the covariances
    bases: kronecker.Sides  # Q^T: their approximate eigenvectors, as rows, as last used
    values: kronecker.Sides  # lambda: their approximate eigenvalues, [*batch, n]


@factory
def precondition_by_kl_shampoo(
    b1: Hyper = 0.9,
    *,
    decay: Hyper = 0.98,
    eps: Hyper = 1e-8,
    start: Hyper = 0.1,
    every: int = 10,
    max_norm: Hyper = 1.5,
    max_size: int = 8192,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Multiply the EMA of each gradient by inverse roots of covariances fitted by KL divergence.

    $$S_a \leftarrow \mathrm{decay} \, S_a + \frac{1 - \mathrm{decay}}{d_b} \,
        g_t Q_b \lambda_b^{-1} Q_b^T g_t^T, \qquad
      \lambda_a \leftarrow \mathrm{decay} \, \lambda_a + \frac{1 - \mathrm{decay}}{d_b} \,
        \mathrm{diag}(Q_a^T g_t Q_b \lambda_b^{-1} Q_b^T g_t^T Q_a)$$
    $$u_t = Q_a \frac{Q_a^T m_t Q_b}{\sqrt{\lambda_a} \sqrt{\lambda_b}^T + \epsilon} Q_b^T,
      \qquad m_t = b_1 m_{t-1} + (1 - b_1) g_t$$

    and $S_b, \lambda_b$ likewise, all after $u_t$ is made. The first gradient makes no step and is
    not counted in $t$. It gives the bases $Q$: the eigenvectors of its covariances. When `every`
    divides $t - 1$, they become the columns of $S Q$ made orthonormal. No eigenvalue of a side
    of $n$ falls below $1 / \max(10, \min(n, 4000))^2$. Where the singular values of $u_t$ exceed
    $\mathrm{max\_norm} \sqrt{\max(d_a, d_b)}$, $u_t$ is shortened, unless `every` is 1. With
    a constant gradient they converge to $\sqrt{\max(d_a, d_b)}$.

    Args:
        b1: decay of the EMA of the gradient.
        decay: decay of the EMAs of the covariances and of their eigenvalues.
        eps: added to the roots, in units of the gradient.
        start: the first eigenvalues.
        every: updates between two renewals of the bases.
        max_norm: limit of the singular values of an update, in units of the root of the longer
            side; `jnp.inf` is none, as in the paper, and so is `every=1`.
        max_size: a longer side is left as it is, and so is a matrix of one row or column.
        batch_axes: see the glossary.

    State: `4*size + ((rows <= max_size)*(8*rows**2 + 4*rows) + (cols <= max_size)*(8*cols**2
        + 4*cols) if min(rows, cols) > 1 else 12)` bytes a leaf, `4` once.
    Flops: at most `12*size*(rows + cols) + 2*size*min(rows, cols) + 5*(rows**3 + cols**3)
        + 70*size + 30*(rows**2 + cols**2) + 100` a leaf, beside the orthonormalizations.
    Paper: Lin and others, "Understanding and Improving Shampoo and SOAP via Kullback-Leibler
        Minimization", arXiv:2509.03378, its KL-Shampoo with QR; first values, lower bound and
        order of steps from the authors' code.
    Departure: computed in at least float32; the authors' code uses bfloat16. A tensor is a
        matrix, not one side per axis. As in the authors' code, the first gradient makes no step,
        and the EMA is not bias-corrected. In the bases, entries under 128 roundings of their row,
        their column and the root mean square count as zero. The limit `max_norm` is ours:
        eigenvalues include a gradient only after its update, so a new direction is divided by the
        smallest of them. It acts on the eighth root of the mean eighth power of the singular
        values, so that none of $n$ ends over $n^{1/8}$ times it. The authors' code can set the
        size of every update instead.
    Limits: for a matrix that is not square, the first covariance of the longer side is singular,
        and LAPACK is free to choose the basis of its null space: between two builds early updates
        differ by up to a third. The first eigenvalues and their lower bound are constants, so
        gradients should not be much under 1e-6; after one gradient far larger than all before,
        updates are small for hundreds more. The first update costs an eigendecomposition a side,
        and every one that renews the bases, a QR decomposition. Explicitly sharded leaves are
        gathered first. Bases cannot be differentiated: apply `jax.lax.stop_gradient` to the state
        that is given to an update.

    >>> tx, g = gk.precondition_by_kl_shampoo(b1=0.0, start=1.0), jnp.diag(jnp.arange(3.0))
    >>> _, state = tx.update(g, tx.init(g))
    >>> print(tx.update(g, state)[0].round(3)[2])  # unit eigenvalues: the gradient itself
    [0. 0. 2.]
    """
    name = "precondition_by_kl_shampoo"
    check.interval(name, "[0, 1)", b1=b1, decay=decay)
    check.nonnegative(name, eps=eps)
    check.positive(name, start=start, every=every, max_norm=max_norm)
    check.positive(name, max_size=max_size)

    def init(params: Params) -> KLShampooState:
        check.matrix(name, params, batch_axes)
        check.concrete(name, max_size=max_size)
        grams = kronecker.zeros(params, max_size, batch_axes)
        bases = jax.tree.map(roots.identity, grams)
        ones_of = lambda s: on_axes_of(jnp.ones(s.shape[:-1], s.dtype), s)
        ones = jax.tree.map(ones_of, grams)
        mu, step = tree.zeros(params), jnp.zeros([], jnp.int32)
        return KLShampooState(step, mu, grams, bases, ones)

    def update(
        updates: Updates, state: KLShampooState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, KLShampooState]:
        del params, extra
        g, moves = numbers.read_square_summable(updates), state.count > 0

        def first(kept: Bases) -> Bases:
            grams = derivative.refuse(name, kept.grams)
            return kept._replace(bases=kronecker.map_squares(roots.eigenbasis, grams))

        def renew(kept: Bases) -> Bases:
            fixed = derivative.refuse(name, kept)
            moved = jax.tree.map(roots.power_product, *fixed)
            moved = jax.tree.map(roots.or_before, moved, fixed.bases)
            new = kronecker.map_squares(linalg.orthonormal_rows, moved)
            return kept._replace(bases=new)

        due = moves & ((state.count - 1) % every == 0)
        kept = when(state.count == 1, first, Bases(state.grams, state.bases))
        grams, bases = when(due & (state.count > 1), renew, kept)
        counted = jax.tree.map(lambda x: jnp.where(moves, x, 0), g)
        mu = tree.ema(b1, state.mu, counted)
        back = kronecker.transposed(bases)
        with jax.default_matmul_precision("highest"):
            rotated = kronecker.multiply(bases.rows, mu, back.cols, batch_axes)
        rotated = kronecker.above_rounding(rotated, bases, batch_axes)

        limit = jnp.where(every > 1, max_norm, jnp.inf)

        def divide(x: jax.Array, a: Any, b: Any) -> jax.Array:
            if kronecker.is_none(a) and kronecker.is_none(b):
                return x
            y = layout.as_matrix(x, batch_axes)
            rows = 1 if kronecker.is_none(a) else jnp.sqrt(a)[..., :, None]
            cols = 1 if kronecker.is_none(b) else jnp.sqrt(b)[..., None, :]
            scale = rows * cols + eps
            most = limit * max(y.shape[-2:]) ** 0.5
            y = kronecker.limit_spectrum(lambda y: y / scale, y, most)
            return layout.like(y, x, batch_axes)

        d = paths.map_unboxed(divide, rotated, *state.values)
        u = kronecker.multiply(back.rows, d, bases.cols, batch_axes)

        xs = jax.tree.map(lambda x: layout.as_matrix(x, batch_axes), paths.unboxed(g))
        white = white_sides(xs, bases, state.values)
        grams = tree.ema(decay, grams, jax.tree.map(covariance, white))
        new = tree.ema(decay, state.values, jax.tree.map(variances, bases, white))

        def limited(v: jax.Array) -> jax.Array:
            least = max(10, min(v.shape[-1], 4000)) ** -2.0
            return jnp.where(moves, jnp.maximum(v, least), start).astype(v.dtype)

        values = jax.tree.map(limited, new)
        step = numbers.increment(state.count)
        return numbers.like(u, updates), KLShampooState(step, mu, grams, bases, values)

    return transform(init, update)


class Bases(NamedTuple):
    """The bases, and the covariances that they are made from."""

    grams: kronecker.Sides
    bases: kronecker.Sides


def white_sides(
    xs: Any, bases: kronecker.Sides, values: kronecker.Sides
) -> kronecker.Sides:
    """The gradients, for `rows` with whitened columns; for `cols` transposed, likewise."""
    rows = jax.tree.map(white, xs, bases.rows, bases.cols, values.cols)
    back = kronecker.transposed(xs)
    cols = jax.tree.map(white, back, bases.cols, bases.rows, values.rows)
    return kronecker.Sides(rows, cols)


def white(g: jax.Array, basis: Any, other: Any, values: Any) -> Any:
    r"""$g Q_b \lambda_b^{-1/2}$, for a side that has a covariance."""
    if kronecker.is_none(basis):
        return kronecker.NONE
    x = g.astype(basis.dtype)
    if not kronecker.is_none(other):
        x = x @ other.mT / jnp.sqrt(values)[..., None, :]
    return numbers.squarable(x, x.size)


def covariance(x: jax.Array) -> jax.Array:
    """The covariance of the rows of `x`, `[*batch, n, n]`."""
    return roots.gram(x) / max(x.shape[-1], 1)


def variances(basis: jax.Array, x: jax.Array) -> jax.Array:
    """The diagonal of the covariance in a basis, `[*batch, n]`."""
    return jnp.sum(jnp.square(basis @ x), -1) / max(x.shape[-1], 1)
