"""PSGD: triangular factors that learn to make gradients white."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import batch, check, linalg, rate, roots, sample, tree
from gradkit._core.types import (
    Extra,
    Params,
    Rate,
    Scalar,
    Transform,
    Updates,
    transform,
)

Factor = jax.Array | None


class Factors(NamedTuple):
    """What whitens one leaf; a side of length 1 has none, unless it is the only one."""

    rows: Factor  # upper triangles [*batch, n, n], or diagonals [*batch, n]
    cols: Factor
    rows_curvature: Factor  # how strongly fits pull at each, [*batch]
    cols_curvature: Factor


class PSGDState(NamedTuple):
    """The average gradient, and the factors that whiten."""

    step: jax.Array  # updates so far, int32 []
    key: jax.Array  # data of the key of the next update, uint32
    mu: Updates  # average gradient, like the parameters
    factors: tuple[Factors, ...]  # one a leaf


def annealed(step: jax.Array) -> jax.Array:
    """The share of updates that fit: all of the first 500, then fewer, at last 3 %."""
    return jnp.clip(jnp.exp(-1e-3 * (step - 499).astype(jnp.float32)), 0.03, 1)


def precondition_by_psgd(
    b1: Scalar = 0.9,
    fit_rate: Rate = 0.1,
    fit_share: Rate = annealed,
    decay: Scalar = 0.9,
    damping: Scalar = 1e-9,
    scale: Scalar = 1.0,
    max_rms: Scalar = 2.0,
    max_entry: Scalar = 10.0,
    max_size: int = 8192,
    key: sample.Key = 0,
    batch_axes: batch.Axes = (),
) -> Transform:
    r"""Whiten each average gradient by triangular factors that are fitted to gradients.

    $$u_t = \mathrm{scale}^2 \; Q_1^T Q_1 \; m_t \; Q_2^T Q_2, \qquad m_t = \beta_t m_{t-1} + (1 - \beta_t) g_t,
      \qquad \beta_t = \min(b_1, 1 - 1 / t)$$

    A share `fit_share` of the updates first draws $v \sim \mathcal{N}(0, I)$ and moves

    $$h = g_t + (\mathrm{damping} + \epsilon |g_t|) v, \qquad A = \mathrm{scale} \, Q_1 h Q_2^T,
      \qquad B = Q_1^{-T} v Q_2^{-1} / \mathrm{scale}$$
    $$\ell = \lVert A A^T + B B^T \rVert_2, \qquad
      \lambda_1 \leftarrow \max(\ell, \mathrm{decay} \, \lambda_1 + (1 - \mathrm{decay}) \ell)$$
    $$Q_1 \leftarrow Q_1 - \frac{\mathrm{fit\_rate}}{\lambda_1}
      \mathrm{triu}(A A^T - B B^T) \, Q_1$$

    and $Q_2$ likewise by $A^T A$ and $B^T B$. Where gradients are white after $Q$, it rests.

    Args:
        b1: decay of the average gradient, at most.
        fit_rate: how far a fit moves, as a share of what would at once be too far.
        fit_share: the probability of a fit; a number, or a schedule of updates so far.
        decay: decay of the average curvature, which is no smaller than the newest.
        damping: noise added to the gradient fitted to, in its units.
        scale: times the factors, which begin as identities; its square is the first gain.
        max_rms: root mean square of a matrix of updates, at most.
        max_entry: size of an entry of an update, at most.
        max_size: a longer side has a diagonal factor, as have vectors.
        key: a seed or a `jax.random` key; the same key gives the same run.
        batch_axes: axes that number matrices, such as `(0,)` for scanned layers. Of the
            others the last is the columns, and the rest are the rows.

    Needs: nothing; a `probe`, noise like the gradients, replaces `v`.
    State: `4*size + (4 + 4*rows*(rows if cols > 1 and rows <= max_size else 1))*(rows > 1)
        + (4 + 4*cols*(cols if rows > 1 and cols <= max_size else 1))*(cols > 1 or rows < 2)`
        bytes a leaf, `12` once.
    Flops: at most `12*size*(rows + cols) + 3*(rows**3 + cols**3) + 80*size + 60*(rows**2
        + cols**2) + 400` a leaf, `100` once, beside the triangular solves.
    Paper: Li, "Stochastic Hessian Fitting on Lie Group", arXiv:2402.11858: triangular
        factors, gradient whitening; clips and averages as in the author's release.
    Departure: a tensor is a matrix, not one side per axis. The largest eigenvalue of
        $A A^T + B B^T$ is exact up to side 32, else a lower bound by eight power steps; the
        release's is random. Its balancing of the factors changes no update, and is left out. Its newer
        inverse-free forms (QUAD, Q0.5EQ1.5) are other methods.
    Limits: a fit costs two triangular solves, and a gradient much larger than all before
        stops the fitting for some hundred updates. Explicitly sharded leaves are gathered first.

    >>> tx, g = gk.precondition_by_psgd(fit_share=1.0), jnp.array([1e3, -1e3])
    >>> state, _ = jax.lax.scan(lambda s, _: tx.update(g, s)[::-1], tx.init(g), length=300)
    >>> print(tx.update(g, state)[0].round(0))  # of any size: about 1
    [ 1. -1.]
    """
    name = "precondition_by_psgd"
    check.fraction(name, b1=b1, decay=decay)
    check.nonnegative(name, fit_rate=fit_rate, fit_share=fit_share, damping=damping)
    check.positive(name, scale=scale, max_rms=max_rms, max_entry=max_entry)
    check.positive(name, max_size=max_size)
    check.nonnegative(name, key=key)

    def init(params: Params) -> PSGDState:
        factors = tuple(
            _identities(p, max_size, batch_axes) for p in jax.tree.leaves(params)
        )
        start = jnp.array(jax.random.key_data(sample.typed(key)), copy=True)
        step = jnp.zeros([], jnp.int32)
        return PSGDState(step, start, tree.zeros(params), factors)

    def update(
        updates: Updates,
        state: PSGDState,
        params: Params = None,
        *,
        probe: Updates = None,
        **extra: Extra,
    ) -> tuple[Updates, PSGDState]:
        del params, extra
        impl = jax.random.key_impl(sample.typed(key))
        following, seed, coin = jax.random.split(
            jax.random.wrap_key_data(state.key, impl=impl), 3
        )
        step = state.step + 1
        g = roots.read(updates)

        def average(m: jax.Array, g: jax.Array) -> jax.Array:
            return tree.average(jnp.minimum(b1, 1 - 1 / step.astype(m.dtype)), m, g)

        mu = jax.tree.map(average, state.mu, g)
        gs, ms = (
            [batch.upright(x, batch_axes) for x in jax.tree.leaves(t)]
            for t in (tree.like(g, mu), mu)
        )

        def fit() -> tuple[Factors, ...]:
            v = tree.like(_noise(seed, mu) if probe is None else probe, mu)
            vs = [batch.upright(x, batch_axes) for x in jax.tree.leaves(v)]
            pull = rate.at(fit_rate, state.step)
            damped = (damping + jnp.finfo(x.dtype).eps * jnp.abs(x) for x in gs)
            return tuple(
                _fit(f, scale * (g + d * v), v / scale, pull, decay)
                for f, g, d, v in zip(state.factors, gs, damped, vs)
            )

        share = jnp.asarray(rate.at(fit_share, state.step), jnp.float32)
        due = jax.random.uniform(coin, dtype=jnp.float32) < share
        factors = jax.lax.cond(due, fit, lambda: state.factors)
        us = [scale**2 * _whiten(f, m) for f, m in zip(factors, ms)]
        us = [_limit(u, max_rms, max_entry) for u in us]
        leaves, structure = jax.tree.flatten(mu)
        u = [batch.like(u, m, batch_axes) for u, m in zip(us, leaves)]
        kept = jax.random.key_data(following)
        return tree.like(structure.unflatten(u), updates), PSGDState(
            step, kept, mu, factors
        )

    return transform(init, update)


def _identities(p: jax.Array, max_size: int, batch_axes: batch.Axes) -> Factors:
    """The first factors of a leaf: triangles of the sides of a matrix up to `max_size`."""
    lengths, rows, cols = batch.shape(p, batch_axes)
    matrix, dtype = rows > 1 and cols > 1, tree.wide_dtype(p)

    def factor(n: int) -> jax.Array:
        one = (jnp.eye if matrix and n <= max_size else jnp.ones)(n, dtype=dtype)
        return jnp.broadcast_to(one, (*lengths, *one.shape))

    q1 = factor(rows) if rows > 1 else None
    q2 = factor(cols) if cols > 1 or rows < 2 else None
    c1, c2 = (None if q is None else jnp.zeros(lengths, dtype) for q in (q1, q2))
    return Factors(q1, q2, c1, c2)


def _noise(key: jax.Array, t: Updates) -> Updates:
    """Standard normal noise like `t`, drawn in float32."""
    leaves, structure = jax.tree.flatten(t)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten(
        jax.random.normal(k, x.shape, jnp.float32) for k, x in zip(keys, leaves)
    )


def _fit(
    f: Factors, h: jax.Array, v: jax.Array, pull: Scalar, decay: Scalar
) -> Factors:
    """The factors after a step towards those that make `h` as white as `v` is."""
    a, b = _both(_on, f, h), _both(_under, f, v)
    q1, c1 = _pulled(f.rows, f.rows_curvature, a, b, pull, decay)
    q2, c2 = _pulled(f.cols, f.cols_curvature, a.mT, b.mT, pull, decay)
    return Factors(q1, q2, c1, c2)


def _pulled(
    q: Factor,
    curvature: Factor,
    a: jax.Array,
    b: jax.Array,
    pull: Scalar,
    decay: Scalar,
) -> tuple[Factor, Factor]:
    """A factor, and its curvature, after a step that makes `a a^T` more like `b b^T`."""
    if q is None or curvature is None:
        return None, None
    if q.ndim == a.ndim:
        aa, bb = a @ a.mT, b @ b.mT
        size, change = roots.largest_eigenvalue(aa + bb), jnp.triu(aa - bb) @ q
    else:
        aa, bb = jnp.sum(a * a, -1), jnp.sum(b * b, -1)
        size, change = jnp.max(aa + bb, -1, initial=0), (aa - bb) * q
    curvature = jnp.maximum(size, decay * curvature + (1 - decay) * size)
    share = jnp.where(curvature > 0, pull / curvature, 0).astype(q.dtype)
    share = share.reshape(share.shape + (1,) * (q.ndim - share.ndim))
    return q - share * change, curvature.astype(q.dtype)


def _whiten(f: Factors, m: jax.Array) -> jax.Array:
    r"""$Q_1^T Q_1 m Q_2^T Q_2$."""
    return _both(_off, f, _both(_on, f, m))


def _limit(u: jax.Array, max_rms: Scalar, max_entry: Scalar) -> jax.Array:
    """`u`, its root mean square and then its entries at most these."""
    rms = linalg.norms(u, (-2, -1)) / max(math.prod(u.shape[-2:]), 1) ** 0.5
    short = (u / jnp.maximum(rms / max_rms, 1)).astype(u.dtype)
    return jnp.clip(short, -max_entry, max_entry).astype(u.dtype)


def _both(op: Callable[..., jax.Array], f: Factors, x: jax.Array) -> jax.Array:
    """`op` along the rows with their factor, and along the columns with theirs."""
    return op(f.cols, op(f.rows, x).mT).mT


def _on(q: Factor, x: jax.Array) -> jax.Array:
    """$Q x$."""
    if q is None:
        return x
    return q @ x if q.ndim == x.ndim else q[..., None] * x


def _off(q: Factor, x: jax.Array) -> jax.Array:
    """$Q^T x$."""
    return _on(q if q is None or q.ndim < x.ndim else q.mT, x)


def _under(q: Factor, x: jax.Array) -> jax.Array:
    """$Q^{-T} x$."""
    if q is None:
        return x
    if q.ndim < x.ndim:
        return x / q[..., None]
    return jax.scipy.linalg.solve_triangular(q, x, trans=1)
