"""Directions found in a few dimensions: one projection, made of four parts.

A matrix `g` with `small` and `large` sides is seen in the columns of a basis `p`,
`[*batch, small, rank]`, as `r`: `p^T g`, or `g p` where the rows are the large side, so that
nothing is ever transposed. `Basis` says how `p` is found and what of it is kept, `Refresh` when
it is renewed, `Rest` what becomes of the gradient and of `d`, which `inner` made of `r`, and
`Align` what `inner` should remember of the old basis in the new one.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import batch, check, rests, sample, tree
from gradkit._core.bases import Basis, Kept, gaussian
from gradkit._core.rests import Memory, Rest, Seen, small_side
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Params,
    Scalar,
    Transform,
    Updates,
    transform,
)


class SubspaceState(NamedTuple):
    """The subspaces, and what each part remembers; `()` where a part remembers nothing."""

    step: jax.Array  # updates so far, int32 []
    bases: tuple[Kept, ...]  # what the bases are made from, one a leaf
    refresh: Memory
    rest: tuple[Memory, ...]  # one a leaf
    key: Any  # data of the key to draw from next, uint32 [2]
    inner: optax.OptState


class Refresh(NamedTuple):
    """When a basis is renewed: one answer for all leaves, or one for each."""

    start: Callable[[int], Memory]  # leaves
    due: Callable[[Memory, jax.Array, int], jax.Array]  # memory, updates so far, leaves
    note: Callable[[Memory, jax.Array, Callable[[], jax.Array]], Memory]  # due, shares


# Of the state of `inner`, what it sees, the turns `new^T old`, and the updates so far.
Align = Callable[
    [optax.OptState, Sequence[jax.Array], Sequence[jax.Array], jax.Array],
    optax.OptState,
]


def project(
    name: str,
    inner: AnyTransform,
    rank: int | jax.Array,
    basis: Basis,
    refresh: Refresh,
    rest: Rest,
    align: Align | None = None,
    key: sample.Key | None = None,
    batch_axes: batch.Axes = (),
) -> Transform:
    """The transform `name` that lets `inner` see every leaf in a basis of few columns."""
    if not isinstance(rank, jax.Array):  # as inject_hyperparams makes it; init reads it
        check.count(name, rank=rank)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SubspaceState:
        check.matrix(name, params, batch_axes)
        leaves = [_sides(p, rank, batch_axes) for p in jax.tree.leaves(params)]
        *keys, following = _split(key, len(leaves) + 1)
        return SubspaceState(
            step=jnp.zeros([], jnp.int32),
            bases=tuple(basis.start(b, d, k) for (b, _, d), k in zip(leaves, keys)),
            refresh=refresh.start(len(leaves)),
            rest=tuple(rest.start(b[:-2], d) for b, _, d in leaves),
            key=_data(following),
            inner=inner.init(tuple(jnp.zeros(low, d) for _, low, d in leaves)),
        )

    def update(
        updates: Updates, state: SubspaceState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, SubspaceState]:
        del params
        leaves, structure = jax.tree.flatten(updates)
        gs = [_upright(x, k, batch_axes) for x, k in zip(leaves, state.bases)]
        now, following = _split(_restored(state.key, key), 2)
        due = refresh.due(state.refresh, state.step, len(gs))
        bases = _renew(basis, due, state.bases, gs, now)
        ps = _vectors(basis, bases, gs)
        low = _see(ps, gs)
        remembered = state.inner
        if align is not None:
            turn: Align = align

            def moved() -> optax.OptState:
                olds = _vectors(basis, state.bases, gs)
                turns = [new.mT @ old for new, old in zip(ps, olds)]
                return turn(state.inner, low, turns, state.step)

            again = jnp.any(due) & (state.step > 0)
            remembered = jax.lax.cond(again, moved, lambda: state.inner)
        directions, inner_state = inner.update(low, remembered, None, **extra)
        ds = jax.tree.leaves(directions)
        seen = [Seen(tree.finite(g), *x) for g, *x in zip(gs, ps, low, ds)]
        done = [rest.combine(s, memory) for s, memory in zip(seen, state.rest)]
        u = structure.unflatten(
            batch.like(u, x, batch_axes) for (u, _), x in zip(done, leaves)
        )
        return tree.like(u, updates), SubspaceState(
            step=state.step + 1,
            bases=bases,
            refresh=refresh.note(state.refresh, due, lambda: _shares(seen)),
            rest=tuple(memory for _, memory in done),
            key=_data(following),
            inner=inner_state,
        )

    init.__qualname__ = name
    return transform(init, update)


def shadows(
    name: str,
    inner: AnyTransform,
    rank: int | jax.Array,
    every: Scalar,
    scale: Scalar,
    growth: Scalar,
    eps: Scalar,
    axes: Callable[[Seen], Any],
    key: sample.Key,
    batch_axes: batch.Axes,
) -> Transform:
    """APOLLO: gradients as long, along `axes`, as `inner` makes random projections of them."""
    check.positive(name, every=every, growth=growth)
    check.nonnegative(name, scale=scale, eps=eps, key=key)
    rest = rests.rescaled(scale, growth, eps, axes)
    drawn, due = gaussian(), together(every)
    return project(name, inner, rank, drawn, due, rest, None, key, batch_axes)


# When to renew.


def together(every: Scalar) -> Refresh:
    """All bases whenever `every` divides the updates so far."""
    return _timed(lambda step, leaves: step % every == 0)


def in_turn(every: Scalar) -> Refresh:
    """All at the first update, then each once in `every` updates, leaves in turn.

    No update renews more than about `leaves / every` of them.
    """

    def due(step: jax.Array, leaves: int) -> jax.Array:
        turn = jnp.arange(leaves, dtype=step.dtype) * every // max(leaves, 1)
        return (step == 0) | ((step - turn) % every == 0)

    return _timed(due)


def when_shares_fall(overlap: Scalar) -> Refresh:
    """Each basis after the share of the gradient's norm in it fell to `overlap` of its first."""

    def start(leaves: int) -> jax.Array:
        return jnp.stack([jnp.ones(leaves), jnp.zeros(leaves)])

    def due(memory: jax.Array, step: jax.Array, leaves: int) -> jax.Array:
        first, last = memory
        return last <= overlap * first

    def note(
        memory: jax.Array, due: jax.Array, shares: Callable[[], jax.Array]
    ) -> jax.Array:
        last = shares().astype(memory.dtype)
        return jnp.stack([jnp.where(due, last, memory[0]), last])

    return Refresh(start, due, note)


def _timed(due: Callable[[jax.Array, int], jax.Array]) -> Refresh:
    return Refresh(
        start=lambda leaves: (),
        due=lambda memory, step, leaves: due(step, leaves),
        note=lambda memory, due, shares: memory,
    )


# What `inner` remembers.


def turned(b1: Scalar, b2: Scalar) -> Align:
    """Averages `mu` and average squares `nu`, of decays `b1` and `b2`, in the new basis.

    Means and variances turn with the basis `c`; the covariance of different columns is none.
    """

    def align(
        state: optax.OptState,
        low: Sequence[jax.Array],
        turns: Sequence[jax.Array],
        step: jax.Array,
    ) -> optax.OptState:
        del low

        def averages(x: Any) -> Any:
            mu, structure = jax.tree.flatten(x.mu)
            nu = jax.tree.leaves(x.nu)
            both = [leaf(c, m, v) for c, m, v in zip(turns, mu, nu)]
            return x._replace(
                mu=structure.unflatten(m for m, _ in both),
                nu=structure.unflatten(v for _, v in both),
            )

        def leaf(
            c: jax.Array, m: jax.Array, v: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            turn = lambda c, x: c @ x if small_side(x) == -2 else x @ c.mT
            weight = lambda b: tree.one_minus_power(b, step, m.dtype)
            w = weight(b2) / jnp.square(weight(b1))
            mean = turn(c, m)
            variance = turn(jnp.square(c), v - w * jnp.square(m))
            return mean, jnp.abs(variance + w * jnp.square(mean))

        moments = lambda x: hasattr(x, "mu") and hasattr(x, "nu")
        return jax.tree.map(
            lambda x: averages(x) if moments(x) else x, state, is_leaf=moments
        )

    return align


def forgotten(inner: AnyTransform) -> Align:
    """Nothing: `inner` begins again."""
    return lambda state, low, turns, step: inner.init(tree.zeros(low))


# One leaf, one matrix.


def _sides(
    p: Any, rank: int | jax.Array, batch_axes: batch.Axes
) -> tuple[tuple[int, ...], tuple[int, ...], Any]:
    """The shapes of a leaf's basis and of what `inner` sees of it, and their dtype."""
    front, rows, cols = batch.shape(p, batch_axes)
    kept = min(int(rank), rows, cols)
    low = (rows, kept) if rows > cols else (kept, cols)
    return (*front, min(rows, cols), kept), (*front, *low), tree.wide_dtype(p)


def _upright(x: jax.Array, kept: Kept, batch_axes: batch.Axes) -> jax.Array:
    """The leaf `x` as `[*batch, rows, cols]`, in the dtype of its basis."""
    floating = jnp.issubdtype(kept.dtype, jnp.floating)
    dtype = kept.dtype if floating else tree.wide_dtype(x)
    return batch.upright(x, batch_axes).astype(dtype)


def _see(ps: Sequence[jax.Array], gs: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    """Every gradient in its basis; non-finite entries count as zero where there are any."""

    def look(gs: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
        return tuple(
            _laid_out(p.mT) @ g if small_side(g) == -2 else g @ p
            for p, g in zip(ps, gs)
        )

    low = look(gs)
    zeros = [jnp.sum(0 * r) for r in low]  # nan where an entry is not finite
    sound = [jnp.isfinite(z) for z in zeros]
    return jax.lax.cond(
        functools.reduce(jnp.logical_and, sound, jnp.array(True)),
        lambda: low,
        lambda: look([tree.finite(g) for g in gs]),
    )


def _laid_out(x: jax.Array) -> jax.Array:
    """`x` in memory as it is in name: products of what is transposed are slow on a CPU."""
    return jax.lax.optimization_barrier(x)


def _vectors(
    basis: Basis, kept: Sequence[Kept], gs: Sequence[jax.Array]
) -> list[jax.Array]:
    return [basis.vectors(k, min(g.shape[-2:]), g.dtype) for k, g in zip(kept, gs)]


def _renew(
    basis: Basis,
    due: jax.Array,
    kept: tuple[Kept, ...],
    gs: Sequence[jax.Array],
    key: Any,
) -> tuple[Kept, ...]:
    """What is kept of every basis, renewed where it is `due`."""

    def look(kept: Sequence[Kept], gs: Sequence[jax.Array], key: Any):
        wide = [g if small_side(g) == -2 else g.mT for g in map(tree.finite, gs)]
        return tuple(basis.renew(kept, wide, key))

    if not due.ndim:
        return jax.lax.cond(due, lambda: look(kept, gs, key), lambda: kept)

    def one(i: int, k: Kept, g: jax.Array) -> Kept:
        own = None if key is None else jax.random.fold_in(key, i)
        return jax.lax.cond(due[i], lambda: look([k], [g], own)[0], lambda: k)

    return tuple(one(i, k, g) for i, (k, g) in enumerate(zip(kept, gs)))


def _shares(seen: Sequence[Seen]) -> jax.Array:
    """The norm of what is in the basis over the norm of the gradient, by leaf."""
    return tree.ratio(tree.norms([x.r for x in seen]), tree.norms([x.g for x in seen]))


def _split(key: Any, n: int) -> list[Any]:
    return [None] * n if key is None else list(jax.random.split(sample.typed(key), n))


def _restored(data: Any, key: sample.Key | None) -> Any:
    """`data` as a key of the kind of `key`, if there is one."""
    if key is None:
        return None
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(sample.typed(key)))


def _data(key: Any) -> Any:
    return () if key is None else jax.random.key_data(key)
