"""Inverse-free K-FAC: factors that learn the inverse of the curvature."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, paths, rate, tree
from gradkit._core.condition import when
from gradkit._core.factory import factory
from gradkit._core.matrix import kronecker, layout, roots
from gradkit._core.matrix.kronecker import NONE, is_none
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Rate,
    Scalar,
    Transform,
    Updates,
    transform,
)


class InverseFreeKFACState(NamedTuple):
    """State of `precondition_by_inverse_free_kfac`."""

    count: jax.Array  # updates so far, int32 []
    factors: kronecker.Sides  # A of the rows, B of the columns
    moves: kronecker.Sides  # decayed sums of natural gradients, like the factors


def warmed(step: jax.Array) -> jax.Array:
    """The `fit_rate` of the authors' code: 2e-4 up to step 100, 2e-3 up to 500, then 1e-2."""
    return jnp.select([step <= 100, step < 500], [2e-4, 2e-3], 1e-2)


@factory
def precondition_by_inverse_free_kfac(
    damping: Hyper = 1e-3,
    *,
    decay: Hyper = 0.5,
    fit_rate: Rate = warmed,
    every: int = 10,
    max_size: int = 8192,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Multiply each matrix by factors of the inverse of its curvature, fitted without inverses.

    $$u_t = A A^T g_t B B^T$$

    The factors begin as identities. When `every` divides $t - 1$ they are fitted first:

    $$n_A = \tfrac{1}{2} ( \tfrac{\mathrm{damping}}{d_B} \mathrm{tr}(B^T B) A^T A
      + \tfrac{1}{d_B} H H^T - I ), \qquad H = A^T g_t B$$
    $$m_A \leftarrow \mathrm{decay} \, m_A + n_A, \qquad A \leftarrow A - A \, m_A \;
      \mathrm{fit\_rate} / \max(1, \lVert m_A \rVert)$$

    and $B$ likewise, with $H^T H$. With K-FAC's covariances $U$ of the inputs of a layer and $V$
    of the gradients of its outputs, $H H^T$ is $\mathrm{tr}(B^T V B) \, A^T U A$, and $H^T H$
    is $\mathrm{tr}(A^T U A) \, B^T V B$. They are equal where $g$ is one input times one gradient.

    Args:
        damping: added to the curvature.
        decay: decay of the sums of natural gradients.
        fit_rate: step size of a fit; a number, or a schedule of updates so far.
        every: updates between two fits.
        max_size: a longer side keeps the identity, and so does that of a matrix of one row or
            column.
        batch_axes: see the glossary.

    Needs: nothing; `covariances`, a tree with a pair `(U, V)` in the place of every leaf, makes it
        K-FAC.
    State: `8*((rows <= max_size)*rows**2 + (cols <= max_size)*cols**2
        if min(rows, cols) > 1 else 1)` bytes a leaf, `4` once.
    Flops: at most `10*size*(rows + cols) + 7*(rows**3 + cols**3) + 40*size + 40*(rows**2
        + cols**2) + 200` a leaf.
    Paper: Lin and others, "Simplifying Momentum-based Positive-definite Submanifold
        Optimization with Applications to Deep Learning", arXiv:2302.09738, its update for
        Kronecker factors; from gradients alone as Lin and others, arXiv:2402.03496.
    Departure: without `covariances` the gradient stands for both. A fit is shortened if
        $\lVert m_A \rVert$ exceeds 1, and skipped if its result is not finite; the authors' code
        does neither. Where curvature is small, this slows the growth of every side over 4 from
        the first fit on: after 50 fits of 0.01 on zero gradients of 64 x 64 a factor is 1.06, in
        the authors' code 1.63. Momentum and weight decay belong later in the chain.
    Limits: gradients are divided by the curvature, not by its root: directions grow where
        gradients shrink, so the learning rate is like SGD's near a minimum, not like Adam's. Over
        the hundreds of updates that fitting takes, directions without gradients are in the
        end enlarged by `1 / damping`. Explicitly sharded leaves are gathered first.

    >>> tx, g = gk.precondition_by_inverse_free_kfac(1e-4, fit_rate=0.1, every=1), 0.1 * jnp.eye(2)
    >>> state, _ = jax.lax.scan(lambda s, _: tx.update(g, s)[::-1], tx.init(g), length=300)
    >>> print(tx.update(g, state)[0].round(0))  # twice 1 / 0.1, less damping
    [[20.  0.]
     [ 0. 20.]]
    """
    name = "precondition_by_inverse_free_kfac"
    check.nonnegative(name, damping=damping, fit_rate=fit_rate)
    check.interval(name, "[0, 1)", decay=decay)
    check.positive(name, every=every, max_size=max_size)

    def init(params: Params) -> InverseFreeKFACState:
        check.matrix(name, params, batch_axes)
        check.concrete(name, max_size=max_size)
        zeros = kronecker.zeros(params, max_size, batch_axes)
        first = jax.tree.map(roots.identity, zeros)
        return InverseFreeKFACState(jnp.zeros([], jnp.int32), first, zeros)

    def update(
        updates: Updates,
        state: InverseFreeKFACState,
        params: Params = None,
        *,
        covariances: Any = None,
        **extra: Extra,
    ) -> tuple[Updates, InverseFreeKFACState]:
        del params, extra
        g = numbers.read_square_summable(updates)
        pairs = () if covariances is None else (covariances,)

        def gradients_of(g: jax.Array, a: Any, b: Any, *pair: Any) -> tuple[Any, Any]:
            x = layout.as_matrix(g, batch_axes)
            return natural_gradients(x, a, b, damping, *pair)

        def fit(kept: Fit) -> Fit:
            xs = paths.unboxed(g)
            gradients = jax.tree.map(gradients_of, xs, *kept.factors, *pairs)
            new = kronecker.Sides(*tree.unzip(xs, gradients, 2))
            moves = jax.tree.map(lambda m, n: decay * m + n, kept.moves, new)
            update_factor = functools.partial(
                moved, fit_rate=rate.at(fit_rate, state.count)
            )
            return Fit(
                jax.tree.map(update_factor, kept.factors, moves),
                jax.tree.map(if_finite, moves, kept.moves),
            )

        due = state.count % every == 0
        factors, moves = when(due, fit, Fit(state.factors, state.moves))
        back = kronecker.transposed(factors)
        inside = kronecker.multiply(back.rows, g, factors.cols, batch_axes)
        u = kronecker.multiply(factors.rows, inside, back.cols, batch_axes)
        new = InverseFreeKFACState(numbers.increment(state.count), factors, moves)
        return numbers.like(u, updates), new

    return transform(init, update)


class Fit(NamedTuple):
    """The parts of the state that a fit changes."""

    factors: kronecker.Sides
    moves: kronecker.Sides


def natural_gradients(
    g: jax.Array, a: Any, b: Any, damping: Scalar, covariances: Any = None
) -> tuple[Any, Any]:
    r"""$n_A$ and $n_B$: half of each factor's preconditioned curvature minus the identity."""

    def half_excess(data: Any, factor: Any, other: Any, length: int) -> Any:
        if is_none(factor):
            return NONE
        trace_of_other = length if is_none(other) else trace(other.mT @ other)
        prior = damping * trace_of_other * (factor.mT @ factor)
        curvature = (prior + data) / max(length, 1)
        return (curvature - roots.identity(factor)) / 2

    rows, cols = curvatures(g, a, b, covariances)
    return half_excess(rows, a, b, g.shape[-1]), half_excess(cols, b, a, g.shape[-2])


def curvatures(g: jax.Array, a: Any, b: Any, covariances: Any) -> tuple[Any, Any]:
    r"""$H H^T$ and $H^T H$ of sides with a factor, from a gradient or from K-FAC's covariances."""
    if covariances is None:
        h = between(a, g, b)
        return NONE if is_none(a) else h @ h.mT, NONE if is_none(b) else h.mT @ h
    inputs, outputs = covariances
    u, v = between(a, inputs, a), between(b, outputs, b)
    return trace(v) * u, trace(u) * v


def between(a: Any, x: jax.Array, b: Any) -> jax.Array:
    r"""$A^T x B$; a side without a factor has the identity."""
    x = x if is_none(a) else a.mT @ x.astype(a.dtype)
    return x if is_none(b) else x.astype(b.dtype) @ b


def trace(x: jax.Array) -> jax.Array:
    return jnp.trace(x, axis1=-2, axis2=-1)[..., None, None]


def moved(factor: jax.Array, move: jax.Array, fit_rate: Scalar) -> jax.Array:
    """The factor after a step of norm at most `fit_rate`; unchanged where that is not finite."""
    length = norms.along(move, (-2, -1))
    part = jnp.asarray(fit_rate, factor.dtype) / jnp.maximum(length, 1)
    return if_finite(factor - part * (factor @ move), factor)


def if_finite(new: jax.Array, old: jax.Array) -> jax.Array:
    """`new`, or each matrix of `old` where that of `new` has an entry that is not finite."""
    finite = jnp.all(jnp.isfinite(new), (-2, -1), keepdims=True)
    return jnp.where(finite, new, old)
