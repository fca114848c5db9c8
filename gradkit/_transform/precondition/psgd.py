"""PSGD: triangular factors that learn to whiten gradients."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, norms, numbers, paths, random, rate, shard, tree
from gradkit._core.condition import on_axes_of, when
from gradkit._core.factory import factory
from gradkit._core.matrix import lapack, layout, roots, stacks
from gradkit._core.matrix.kronecker import NONE, Sides, is_none
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


class PSGDState(NamedTuple):
    """State of `precondition_by_psgd`."""

    count: jax.Array  # updates so far, int32 []
    key: jax.Array  # data of the key of the next update, uint32
    mu: Updates  # EMA of the gradient, like the parameters
    factors: Sides  # Q: triangles [*batch, n, n], or diagonals [*batch, n]
    grams: Sides  # Q^T Q, full or diagonal likewise; halve the products in an update
    curvatures: Sides  # lambda: EMA of the curvature of the fit of each, [*batch]


def annealed(step: jax.Array) -> jax.Array:
    """The default `fit_probability`: 1 for 500 updates, then decaying to 0.03."""
    return jnp.clip(jnp.exp(-1e-3 * (step - 499).astype(jnp.float32)), 0.03, 1)


@factory
def precondition_by_psgd(
    b1: Hyper = 0.9,
    *,
    fit_rate: Rate = 0.1,
    fit_probability: Rate = annealed,
    decay: Hyper = 0.9,
    damping: Hyper = 1e-9,
    scale: Hyper = 1.0,
    max_rms: Hyper = 2.0,
    max_entry: Hyper = 10.0,
    max_size: int = 8192,
    key: random.Key = 0,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Whiten the EMA of each gradient by triangular Kronecker factors, fitted to gradients.

    $$u_t = \mathrm{scale}^2 \; Q_1^T Q_1 \; m_t \; Q_2^T Q_2, \qquad m_t = \beta_t m_{t-1} + (1 - \beta_t) g_t,
      \qquad \beta_t = \min(b_1, 1 - 1 / t)$$

    With probability `fit_probability` an update first draws $v \sim \mathcal{N}(0, I)$ and moves

    $$h = g_t + (\mathrm{damping} + \epsilon |g_t|) v, \qquad A = \mathrm{scale} \, Q_1 h Q_2^T,
      \qquad B = Q_1^{-T} v Q_2^{-1} / \mathrm{scale}$$
    $$\ell = \lVert A A^T + B B^T \rVert_2, \qquad
      \lambda_1 \leftarrow \max(\ell, \mathrm{decay} \, \lambda_1 + (1 - \mathrm{decay}) \ell)$$
    $$Q_1 \leftarrow Q_1 - \frac{\mathrm{fit\_rate}}{\lambda_1}
      \mathrm{triu}(A A^T - B B^T) \, Q_1$$

    and $Q_2$ likewise by $A^T A$ and $B^T B$. $Q$ stays as it is once it makes gradients white.

    Args:
        b1: decay of the EMA of the gradient, at most.
        fit_rate: step size of a fit, relative to the inverse of the curvature that it has
            measured.
        fit_probability: the probability of a fit; a number, or a schedule of updates so far.
        decay: decay of the EMA of the curvature, which never falls below the newest curvature.
        damping: size of the noise added to the gradient in a fit, in units of the gradient.
        scale: multiplies the factors, which begin as identities; its square is the first gain.
        max_rms: the largest RMS of a matrix of updates.
        max_entry: the largest size of an entry of an update.
        max_size: a longer side has a diagonal factor, and so do vectors.
        key: see the glossary.
        batch_axes: see the glossary.

    Needs: nothing; a `probe`, noise like the gradients, replaces `v`.
    State: `4*size + (4 + 8*rows*(rows if cols > 1 and rows <= max_size else 1))*(rows > 1)
        + (4 + 8*cols*(cols if rows > 1 and cols <= max_size else 1))*(cols > 1 or rows < 2)`
        bytes a leaf, `12` once.
    Flops: at most `10*size*(rows + cols) + 5*(rows**3 + cols**3) + 80*size + 60*(rows**2
        + cols**2) + 400` a leaf, `100` once, beside the triangular solves.
    Paper: Li, "Stochastic Hessian Fitting on Lie Group", arXiv:2402.11858: triangular factors,
        gradient whitening; clipping and EMAs from the author's code, whose newer inverse-free
        forms are other methods.
    Departure: a tensor is a matrix, not one side per axis. The largest eigenvalue of
        $A A^T + B B^T$ is exact up to side 32, else a lower bound by eight power steps; the
        author's code estimates it at random, and also balances the factors, which changes no
        update.
    Limits: the state also keeps $Q_1^T Q_1$ and $Q_2^T Q_2$, so that updates without a fit cost
        half. A fit costs two triangular solves. A gradient far larger than all before stops
        fitting for some hundred updates. Explicitly sharded leaves are gathered first.

    >>> tx, g = gk.precondition_by_psgd(fit_probability=1.0), jnp.array([1e3, -1e3])
    >>> state, _ = jax.lax.scan(lambda s, _: tx.update(g, s)[::-1], tx.init(g), length=300)
    >>> print(tx.update(g, state)[0].round(0))  # of any size: about 1
    [ 1. -1.]
    """
    name = "precondition_by_psgd"
    check.interval(name, "[0, 1)", b1=b1, decay=decay)
    check.nonnegative(
        name, fit_rate=fit_rate, fit_probability=fit_probability, damping=damping
    )
    check.positive(name, scale=scale, max_rms=max_rms, max_entry=max_entry)
    check.nonnegative(name, key=key)
    check.positive(name, max_size=max_size)

    def init(params: Params) -> PSGDState:
        check.concrete(name, max_size=max_size)
        ps = paths.unboxed(params)
        side = functools.partial(first_side, max_size=max_size, batch_axes=batch_axes)
        rows, cols = (jax.tree.map(functools.partial(side, axis=i), ps) for i in (0, 1))
        start = jnp.array(jax.random.key_data(random.typed(key)), copy=True)
        mu, step = tree.zeros(params), jnp.zeros([], jnp.int32)
        return PSGDState(step, start, mu, *fields(Sides(rows, cols)))

    def update(
        updates: Updates,
        state: PSGDState,
        params: Params = None,
        *,
        probe: Updates = None,
        **extra: Extra,
    ) -> tuple[Updates, PSGDState]:
        del params, extra
        following, seed, coin = random.split(state.key, 3, key)
        step = numbers.increment(state.count)

        def ema(m: jax.Array, g: jax.Array) -> jax.Array:
            return tree.ema(jnp.minimum(b1, 1 - 1 / step.astype(m.dtype)), m, g)

        mu = jax.tree.map(ema, state.mu, numbers.read_square_summable(updates))
        ms = [layout.as_matrix(m, batch_axes) for m in jax.tree.leaves(mu)]
        structure = jax.tree.structure(paths.unboxed(mu))
        sides = jax.tree.map(Side, state.factors, state.grams, state.curvatures)
        kept = [Sides(*pair) for pair in zip(*map(structure.flatten_up_to, sides))]
        groups = stacks.groups_of([*zip(kept, leaves(mu), ms)])

        def fit(kept: list[Sides]) -> list[Sides]:
            # read again here: a gradient read outside would be stored
            g = numbers.like(numbers.read_square_summable(updates), mu)
            keys = jax.random.split(seed, len(ms))
            noise = [keys[np.array(group)] for group in groups]
            if probe is not None:
                noise = stacks.stack(groups, leaves(numbers.like(probe, mu)))
            pull = rate.at(fit_rate, state.count)

            def fit_one(sides: Sides, g: jax.Array, v: jax.Array) -> Sides:
                v = random.normals(v, g.shape, g.dtype) if probe is None else v
                x, v = (layout.as_matrix(y, batch_axes) for y in (g, v))
                h = x + (damping + jnp.finfo(x.dtype).eps * jnp.abs(x)) * v
                return fitted(sides, scale * h, v / scale, pull, decay)

            stacked = stacks.stack(groups, kept), stacks.stack(groups, leaves(g)), noise
            stacked_sides = [
                stacks.map_stack(fit_one, *group) for group in zip(*stacked)
            ]
            return stacks.unstack(groups, stacked_sides)

        probability = jnp.asarray(rate.at(fit_probability, state.count), jnp.float32)
        due = jax.random.uniform(coin, dtype=jnp.float32) < probability
        new_sides = when(due, fit, kept)
        # applied leaf by leaf, as stacks would be copied
        limits = scale, max_rms, max_entry
        whiten = tree.by_shape(lambda grams, m: whitened(grams, m, *limits))
        us = [whiten(fields(sides)[1], m) for sides, m in zip(new_sides, ms)]
        u = [layout.like(*pair, batch_axes) for pair in zip(us, jax.tree.leaves(mu))]
        rows = structure.unflatten(sides.rows for sides in new_sides)
        cols = structure.unflatten(sides.cols for sides in new_sides)
        after = jax.random.key_data(following)
        new = PSGDState(step, after, mu, *fields(Sides(rows, cols)))
        u = paths.boxed(structure.unflatten(u), mu)
        return numbers.like(u, updates), new

    def leaves(t: Updates) -> list[jax.Array]:
        return [*map(shard.whole, jax.tree.leaves(t))]

    return transform(init, update)


class Side(NamedTuple):
    """The state of the rows or of the columns of one leaf."""

    factor: jax.Array  # Q
    gram: jax.Array  # Q^T Q
    curvature: jax.Array  # lambda


def first_side(p: Any, axis: int, max_size: int, batch_axes: layout.Axes) -> Any:
    """The first state of a side, whose factor is the identity.

    It is a triangle for matrices up to `max_size`, else a diagonal. A side of length 1 has none,
    unless it is the only one.
    """
    lengths, rows, cols = layout.shape(p, batch_axes)
    n, dtype = (rows, cols)[axis], numbers.wide_dtype(p)
    if n < 2 and not (axis == 1 and rows < 2):
        return NONE
    full = rows > 1 and cols > 1 and n <= max_size

    def identity() -> jax.Array:
        first = jnp.eye(n, dtype=dtype) if full else jnp.ones(n, dtype)
        return on_axes_of(jnp.broadcast_to(first, (*lengths, *first.shape)), p)

    return Side(identity(), identity(), on_axes_of(jnp.zeros(lengths, dtype), p))


def fields(sides: Sides) -> tuple[Sides, Sides, Sides]:
    """The factors, the Gram matrices and the curvatures of sides, of one leaf or of a tree."""

    def each(f: Callable[[Side], jax.Array]) -> Sides:
        return jax.tree.map(f, sides, is_leaf=lambda x: isinstance(x, Side))

    return each(lambda s: s.factor), each(lambda s: s.gram), each(lambda s: s.curvature)


def fitted(
    sides: Sides, h: jax.Array, v: jax.Array, fit_rate: Scalar, decay: Scalar
) -> Sides:
    """The sides of a leaf after one fit, towards factors that make `h` as white as `v`."""
    factors, _, _ = fields(sides)
    a, b = product(factors, h), quotient(factors, v)
    a, b = (numbers.squarable(x, x.size) for x in (a, b))
    return Sides(
        moved(sides.rows, a, b, fit_rate, decay),
        moved(sides.cols, a.mT, b.mT, fit_rate, decay),
    )


def moved(
    side: Any, a: jax.Array, b: jax.Array, fit_rate: Scalar, decay: Scalar
) -> Any:
    r"""The side with $Q - \mathrm{fit\_rate} \, / \, \lambda \, \mathrm{triu}(A A^T - B B^T) \, Q$."""
    if is_none(side):
        return side
    q, old = side.factor, side.curvature
    full = q.ndim == a.ndim
    if full:
        aa, bb = a @ a.mT, b @ b.mT
        size = roots.largest_eigenvalue(aa + bb)
    else:
        aa, bb = jnp.sum(a * a, -1), jnp.sum(b * b, -1)
        size = jnp.max(aa + bb, -1, initial=0)
    curvature = jnp.maximum(size, decay * old + (1 - decay) * size)
    divisor = jnp.where(curvature > 0, curvature, 1)
    divisor = divisor.reshape(divisor.shape + (1,) * (q.ndim - divisor.ndim))
    pull = fit_rate * ((aa - bb) / divisor)  # of entries up to the rate
    pull = pull.astype(q.dtype)
    q = q - (of_triangles(jnp.triu(pull), q) if full else pull * q)
    return Side(q, q.mT @ q if full else q * q, curvature.astype(q.dtype))


def whitened(
    grams: Sides, x: jax.Array, scale: Scalar, max_rms: Scalar, max_entry: Scalar
) -> jax.Array:
    r"""$\mathrm{scale}^2 Q_1^T Q_1 x Q_2^T Q_2$, limited to `max_rms`, then to `max_entry`.

    The factors see entries of at most 1, so that nothing overflows before it is limited.
    """
    size = jnp.max(jnp.abs(x), (-2, -1), keepdims=True, initial=0)
    unit = x / jnp.where(size > 0, size, 1)
    u = numbers.finite(scale**2 * product(grams, unit))
    rms = norms.along(u, (-2, -1)) / max(math.prod(u.shape[-2:]), 1) ** 0.5
    room = max_rms / jnp.where(rms > 0, rms, 1)
    short = (u * jnp.minimum(size, room)).astype(u.dtype)
    return jnp.clip(short, -max_entry, max_entry).astype(u.dtype)


def product(factors: Sides, x: jax.Array) -> jax.Array:
    r"""$Q_1 x Q_2^T$."""
    q, r = factors
    if not is_none(q):
        x = q @ x if q.ndim == x.ndim else q[..., None] * x
    if not is_none(r):
        x = x @ r.mT if r.ndim == x.ndim else x * r[..., None, :]
    return x


def quotient(factors: Sides, x: jax.Array) -> jax.Array:
    r"""$Q_1^{-T} x Q_2^{-1}$, solved on transposes, which lie in memory as LAPACK's columns."""
    solve, y = functools.partial(lapack.solve_triangular, lower=True), x.mT
    q, r = factors
    if not is_none(r):
        y = solve(r.mT, y, left_side=True) if r.ndim == y.ndim else y / r[..., None]
    if not is_none(q) and q.ndim == y.ndim:
        y = solve(q.mT, y, transpose_a=True)
    elif not is_none(q):
        y = y / q[..., None, :]
    return y.mT


def of_triangles(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a @ b` where the lower triangles of both are zero: of large ones with half of the work."""
    n = b.shape[-1] // 2
    if n < 256:
        return a @ b
    first = of_triangles(a[..., :n, :n], b[..., :n, :n])
    last = of_triangles(a[..., n:, n:], b[..., n:, n:])
    corner = a[..., :n, :] @ b[..., n:]
    return jnp.block([[first, corner], [jnp.zeros_like(corner).mT, last]])
