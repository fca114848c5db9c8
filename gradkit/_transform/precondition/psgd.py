"""PSGD: triangular factors that learn to make gradients white."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import (
    alike,
    check,
    numbers,
    paths,
    random,
    rate,
    shard,
    tree,
    whitening,
)
from gradkit._core.condition import when
from gradkit._core.factory import factory
from gradkit._core.matrix import kronecker, layout
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Rate,
    Transform,
    Updates,
    transform,
)


class PSGDState(NamedTuple):
    """The average gradient, and the factors that whiten."""

    count: jax.Array  # updates so far, int32 []
    key: jax.Array  # data of the key of the next update, uint32
    mu: Updates  # average gradient, like the parameters
    factors: whitening.Factors  # each a tree like the parameters, of what a leaf has


def masked(x: Any) -> Any:
    """What a state keeps of a factor: where there is none, what optax skips."""
    return kronecker.NONE if x is None else x


def some(x: Any) -> Any:
    """The factor that is kept, or None."""
    return None if kronecker.is_none(x) else x


def annealed(step: jax.Array) -> jax.Array:
    """The share of updates that fit: all of the first 500, then fewer, at last 3 %."""
    return jnp.clip(jnp.exp(-1e-3 * (step - 499).astype(jnp.float32)), 0.03, 1)


@factory
def precondition_by_psgd(
    b1: Hyper = 0.9,
    *,
    fit_rate: Rate = 0.1,
    fit_share: Rate = annealed,
    decay: Hyper = 0.9,
    damping: Hyper = 1e-9,
    scale: Hyper = 1.0,
    max_rms: Hyper = 2.0,
    max_entry: Hyper = 10.0,
    max_size: int = 8192,
    key: random.Key = 0,
    batch_axes: layout.Axes = (),
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
    State: `4*size + (4 + 8*rows*(rows if cols > 1 and rows <= max_size else 1))*(rows > 1)
        + (4 + 8*cols*(cols if rows > 1 and cols <= max_size else 1))*(cols > 1 or rows < 2)`
        bytes a leaf, `12` once.
    Flops: at most `10*size*(rows + cols) + 5*(rows**3 + cols**3) + 80*size + 60*(rows**2
        + cols**2) + 400` a leaf, `100` once, beside the triangular solves.
    Paper: Li, "Stochastic Hessian Fitting on Lie Group", arXiv:2402.11858: triangular
        factors, gradient whitening; clips and averages as in the author's release, whose newer
        forms without inverses are other methods.
    Departure: a tensor is a matrix, not one side per axis. The largest eigenvalue of
        $A A^T + B B^T$ is exact up to side 32, else a lower bound by eight power steps; the
        release's is random. Its balancing of the factors changes no update, and is left out.
    Limits: keeps $Q_1^T Q_1$ and $Q_2^T Q_2$ too, so that updates without a fit cost half. A
        fit costs two triangular solves, and a gradient far over all before stops it for some
        hundred updates. Explicitly sharded leaves are gathered first.

    >>> tx, g = gk.precondition_by_psgd(fit_share=1.0), jnp.array([1e3, -1e3])
    >>> state, _ = jax.lax.scan(lambda s, _: tx.update(g, s)[::-1], tx.init(g), length=300)
    >>> print(tx.update(g, state)[0].round(0))  # of any size: about 1
    [ 1. -1.]
    """
    name = "precondition_by_psgd"
    check.fraction(name, b1=b1, decay=decay)
    check.nonnegative(name, fit_rate=fit_rate, fit_share=fit_share, damping=damping)
    check.positive(name, scale=scale, max_rms=max_rms, max_entry=max_entry)
    check.nonnegative(name, key=key)
    check.positive(name, max_size=max_size)

    def init(params: Params) -> PSGDState:
        factors = whitening.Factors(
            *(
                jax.tree.map(functools.partial(first, i), paths.unboxed(params))
                for i in range(len(whitening.Factors._fields))
            )
        )
        start = jnp.array(jax.random.key_data(random.typed(key)), copy=True)
        return PSGDState(jnp.zeros([], jnp.int32), start, tree.zeros(params), factors)

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

        def average(m: jax.Array, g: jax.Array) -> jax.Array:
            return tree.ema(jnp.minimum(b1, 1 - 1 / step.astype(m.dtype)), m, g)

        mu = jax.tree.map(average, state.mu, kronecker.read(updates))
        ms = [layout.as_matrix(m, batch_axes) for m in jax.tree.leaves(mu)]
        structure = jax.tree.structure(paths.unboxed(mu))
        columns = [structure.flatten_up_to(field) for field in state.factors]
        kept = [whitening.Factors(*map(some, row)) for row in zip(*columns)]
        groups = alike.groups_of([*zip(kept, leaves(mu), ms)])

        def fit(kept: list[whitening.Factors]) -> list[whitening.Factors]:
            # not outside, where it would be stored
            gs = alike.stacks(groups, leaves(numbers.like(kronecker.read(updates), mu)))
            keys = jax.random.split(seed, len(ms))
            noise = [keys[np.array(group)] for group in groups]
            if probe is not None:
                noise = alike.stacks(groups, leaves(numbers.like(probe, mu)))
            pull = rate.at(fit_rate, state.count)

            def fitted(f: whitening.Factors, g: jax.Array, v: jax.Array) -> Any:
                v = random.normals(v, g.shape, g.dtype) if probe is None else v
                x, v = (layout.as_matrix(y, batch_axes) for y in (g, v))
                h = x + (damping + jnp.finfo(x.dtype).eps * jnp.abs(x)) * v
                return whitening.fitted(f, scale * h, v / scale, pull, decay)

            stacks = zip(alike.stacks(groups, kept), gs, noise)
            return alike.apart(groups, [alike.each(fitted, *stack) for stack in stacks])

        share = jnp.asarray(rate.at(fit_share, state.count), jnp.float32)
        due = jax.random.uniform(coin, dtype=jnp.float32) < share
        found = when(due, fit, kept)
        limits = scale, max_rms, max_entry  # not of stacks, which would be copied
        whitened = tree.by_shape(lambda f, m: whitening.whitened(f, m, *limits))
        us = [*map(whitened, found, ms)]
        u = [layout.like(*pair, batch_axes) for pair in zip(us, jax.tree.leaves(mu))]
        fields = range(len(state.factors))
        factors = whitening.Factors(
            *(structure.unflatten(masked(f[i]) for f in found) for i in fields)
        )
        new = PSGDState(step, jax.random.key_data(following), mu, factors)
        u = paths.boxed(structure.unflatten(u), mu)
        return numbers.like(u, updates), new

    def first(field: int, p: jax.Array) -> Any:
        return masked(whitening.identities(p, max_size, batch_axes)[field])

    def leaves(t: Updates) -> list[jax.Array]:
        return [*map(shard.whole, jax.tree.leaves(t))]

    return transform(init, update)
