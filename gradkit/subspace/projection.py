"""Directions found in a few dimensions: the one projection that all subspace methods are."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, condition, numbers, paths, random
from gradkit._core.factory import part
from gradkit._core.matrix import layout
from gradkit._core.mismatch import of_state
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Model,
    Params,
    Transform,
    Updates,
    transform,
)
from gradkit.subspace import basis_state
from gradkit.subspace.bases import Basis
from gradkit.subspace.basis_state import Side
from gradkit.subspace.parts import check_parts
from gradkit.subspace.realign import Realign
from gradkit.subspace.residuals import Memory, Projected, Residual
from gradkit.subspace.schedules import UpdateSchedule

NAME = "subspace.project"


class SubspaceState(NamedTuple):
    """The subspaces, and what each part remembers; `()` where a part remembers nothing."""

    count: jax.Array  # updates so far, int32 []
    bases: Any  # what the bases are made from, a tree like the parameters
    refresh: Memory
    rest: Any  # what it remembers of each leaf, a tree like the parameters
    key: Any  # data of the key to draw from next, uint32 [2]
    inner: optax.OptState  # of a tree like the parameters


@part
def project(
    inner: AnyTransform,
    rank: int | jax.Array,
    basis: Basis,
    refresh: UpdateSchedule,
    rest: Residual,
    align: Realign | None = None,
    *,
    key: random.Key = 0,
    batch_axes: layout.Axes = (),
    side: Side = "small",
    model: Model = None,
) -> Transform:
    r"""Let `inner` see every matrix in a basis of few columns, and act in it.

    $$r_t = P_t^T g_t, \qquad d_t = \mathrm{inner}(r_t), \qquad
      u_t = \mathrm{rest}(g_t, P_t, r_t, d_t)$$

    for a $g$ of which the rows are seen in the basis, else $r_t = g_t P_t$: nothing is transposed.

    Args:
        inner: any transform; sees a tree like the parameters, the leaves with one side cut to
            `rank`.
        rank: columns of a basis, at most the small side.
        basis: how $P$ is found, and what of it is kept.
        refresh: when it is renewed.
        rest: what becomes of the gradient, and of what `inner` made of it.
        align: what `inner` remembers after a basis is renewed; `None` keeps what it has.
        key: a seed or a `jax.random` key, for bases that are drawn.
        batch_axes: axes that number matrices, such as `(0,)` for scanned layers. Of the
            others the last is the columns, and the rest are the rows.
        side: the one that is cut: the "small" one, or the "large" one, with larger bases and less
            for `inner` to remember.
        model: what `gradkit.read_model` read: it says in place of `batch_axes` which matrices each
            leaf holds. All leaves but hidden matrices go to `inner` as they are.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: the bases, `rank` columns of the side that is cut for each leaf, or what they are made
        from; what each part remembers; and the state of `inner` on matrices cut to `rank`.
    Paper: Zhao and others, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
        Projection", arXiv:2403.03507, Algorithm 1, of which the parts are variations.
    Departure: what of $r$ is under 128 roundings of the column (or row) of $g$ that it is made of
        counts as zero, so that no `inner` makes it as large as all else.
    Limits: matrices only. Parts that draw number the leaves by their order.

    >>> parts = gk.subspace.randomized_svd(), gk.subspace.staggered(every=200), gk.subspace.error_feedback()
    >>> tx, g = gk.subspace.project(optax.identity(), 1, *parts), jnp.eye(2)
    >>> u, state = tx.update(g, tx.init(g))  # what is not moved is remembered
    >>> bool(jnp.allclose(u + state.rest, g, atol=1e-6))
    True
    """
    if not isinstance(rank, jax.Array):  # as inject_hyperparams makes it
        check.count(NAME, rank=rank)
    check.nonnegative(NAME, key=key)
    basis_state.check_side(NAME, side)
    check_parts(NAME, align, basis=basis, refresh=refresh, rest=rest)
    check.transform(NAME, "inner", inner)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SubspaceState:
        check.matrix(NAME, params, batch_axes)
        check.concrete(NAME, rank=rank)
        ps, structure = jax.tree.flatten(paths.unboxed(params))
        sizes = [basis_state.sizes(p, int(rank), side, batch_axes) for p in ps]
        kinds, begin = [x.dtype for x in sizes], rest.start
        first = random.typed(key) if basis.draws else None
        *keys, following = _split(first, len(ps) + 1)

        def each(start: Any, *args: Any) -> Any:
            """A tree like the parameters, its leaves on the axes of a `shard_map` of theirs."""
            made = map(start, *args)
            return structure.unflatten(map(condition.varying_as, made, ps))

        count = jnp.zeros([], jnp.int32)
        memory = condition.varying_as(refresh.start(len(ps)), ps)
        inner_state = inner.init(each(jnp.zeros, [x.low for x in sizes], kinds))
        if align is not None:  # and each device has a new basis when it is due there
            due = refresh.due(memory, count, len(ps))
            inner_state = condition.varying_as(inner_state, due)
        return SubspaceState(
            count=count,
            bases=each(basis.start, [x.basis for x in sizes], kinds, keys),
            refresh=memory,
            rest=each(begin, [x.leaf for x in sizes], kinds) if begin else (),
            key=() if following is None else jax.random.key_data(following),
            inner=inner_state,
        )

    def update(
        updates: Updates, state: SubspaceState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, SubspaceState]:
        del params
        leaves, structure = jax.tree.flatten(updates)
        bare = paths.unboxed(updates)
        like_state = jax.tree.structure(bare).unflatten
        _check_state(of_state(init, bare, state, None))
        kept = jax.tree.leaves(state.bases)
        gs = [basis_state.upright(x, k, batch_axes) for x, k in zip(leaves, kept)]
        memories = [()] * len(gs)
        if rest.start:
            memories = jax.tree.structure(bare).flatten_up_to(state.rest)
        gs = list(map(rest.meet, gs, memories))
        axes = [basis_state.seen_axis(g.shape, side) for g in gs]
        now, following = _split(_restored(state.key, key), 2)
        due = refresh.due(state.refresh, state.count, len(gs))
        bases = basis_state.renew(basis, due, kept, gs, axes, now)
        ps = basis_state.vectors(basis, bases, gs, axes)
        low = basis_state.see(basis, bases, gs, axes)
        olds = lambda: basis_state.vectors(basis, kept, gs, axes)
        again = due & (state.count > 0)
        change = (again, low, ps, olds, axes, state.count, like_state)
        inner_state = basis_state.aligned(align, state.inner, *change)
        directions, inner_state = inner.update(
            like_state(low), inner_state, None, **extra
        )
        ds = jax.tree.leaves(directions)
        finite = map(numbers.finite, gs)
        seen = [Projected(*x) for x in zip(finite, ps, low, ds, axes, gs)]
        done = list(map(rest.combine, seen, memories))
        u = structure.unflatten(
            layout.like(u, x, batch_axes) for (u, _), x in zip(done, leaves)
        )
        return numbers.like(u, updates), SubspaceState(
            count=numbers.increment(state.count),
            bases=like_state(bases),
            refresh=refresh.note(state.refresh, due, lambda: basis_state.shares(seen)),
            rest=like_state(memory for _, memory in done) if rest.start else (),
            key=() if following is None else jax.random.key_data(following),
            inner=inner_state,
        )

    init.__qualname__ = NAME
    return transform(init, update)


def _check_state(wrong: str | None) -> None:
    """Nothing is wrong with a state, as with one of another rank, in which an update could act."""
    what = "state must be of these parameters and arguments"
    remedy = "Call tx.update(grads, state, params) with what tx.init(params) made."
    check.holds(NAME, not wrong, what, wrong, remedy)


def _split(key: Any, n: int) -> list[Any]:
    return [None] * n if key is None else list(jax.random.split(key, n))


def _restored(data: Any, key: random.Key) -> Any:
    """`data` as a key of the kind of `key`, if there is any."""
    if isinstance(data, tuple):
        return None
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(random.typed(key)))
