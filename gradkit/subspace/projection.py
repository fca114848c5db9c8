"""The projection that all low-rank methods share: `inner` acts on gradients in a basis."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from gradkit._core import check, numbers, paths, random, tree
from gradkit._core.condition import varying_as, when
from gradkit._core.factory import part
from gradkit._core.matrix import layout
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Model,
    Params,
    Transform,
    Updates,
    transform,
)
from gradkit.subspace import renewal, views
from gradkit.subspace.parts import (
    Basis,
    BasisState,
    Memory,
    Projected,
    Realign,
    Residual,
    UpdateSchedule,
    check_parts,
    no_memory,
)
from gradkit.subspace.residuals import discard_residual
from gradkit.subspace.schedules import every_n
from gradkit.subspace.singular_vectors import svd
from gradkit.subspace.views import Side, View

NAME = "subspace.project"
OTHER_STATE = (
    "state must be of this rank and these parts",
    "another one",
    "Call tx.update(grads, state, params) with what tx.init(params) made.",
)


class SubspaceState(NamedTuple):
    """State of `project`; a part without a memory has `()`."""

    count: jax.Array  # updates so far, int32 []
    bases: Any  # what each leaf's basis is made from, a tree like the parameters
    found: Any  # bools, whether each matrix has its basis yet; of lazy bases only
    schedule: Memory
    residual: Any  # memory of each leaf, a tree like the parameters
    key: Any  # `jax.random.key_data` of the next key, uint32 [2]
    inner: optax.OptState  # for the projections, a tree like the parameters


@part
def project(
    inner: AnyTransform,
    rank: int | jax.Array,
    *,
    basis: Basis | None = None,
    schedule: UpdateSchedule | None = None,
    residual: Residual | None = None,
    realign: Realign | None = None,
    key: random.Key = 0,
    batch_axes: layout.Axes = (),
    side: Side = "small",
    model: Model = None,
) -> Transform:
    r"""Project every matrix onto a basis of few columns, and let `inner` act on the projection.

    $$r_t = P_t^T g_t, \qquad d_t = \mathrm{inner}(r_t), \qquad
      u_t = \mathrm{residual}(g_t, P_t, r_t, d_t)$$

    where the rows of $g$ are projected. Where the columns are, $r_t = g_t P_t$, without a
    transposition.

    Args:
        inner: any transform; it is given the projections, a tree like the parameters.
        rank: columns of a basis, at most the small side of a matrix.
        basis: how $P$ is found, and what of it is kept; `svd()` if none is given.
        schedule: when $P$ is renewed; `every_n()`, every 200 updates, if none is given.
        residual: how the update is made from the gradient and from what `inner` returns;
            `discard_residual()` if none is given.
        realign: what becomes of the state of `inner` when a basis is renewed; by default it stays.
        key: a seed or a `jax.random` key, for bases that are drawn.
        batch_axes: the stacked axes, such as `(0,)` for scanned layers. Of the other axes the last
            is the columns and the rest are the rows.
        side: which side is projected: the "small" one, or the "large" one, with larger bases and
            a smaller state of `inner`.
        model: what `gradkit.read_model` returns. In place of `batch_axes` it says which matrices
            each leaf holds. All leaves but hidden matrices go to `inner` as they are.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: the bases, `rank` columns of the projected side of each leaf, or what they are made
        from; the memory of each part; and the state of `inner` on the projections.
    Paper: Zhao and others, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
        Projection", arXiv:2403.03507, Algorithm 1; the parts are variations of it.
    Departure: entries of $r$ up to 128 eps times the norm of the column (or row) of $g$ that they
        are made from count as zero, so that no `inner` enlarges rounding errors.
    Limits: matrices only. Bases that are drawn depend on the order of the leaves: a new parameter
        changes those after it.

    >>> feedback, g = gk.subspace.error_feedback(), jnp.eye(2)
    >>> tx = gk.subspace.project(optax.identity(), rank=1, residual=feedback)
    >>> u, state = tx.update(g, tx.init(g))  # the residual is kept
    >>> bool(jnp.allclose(u + state.residual, g, atol=1e-6))
    True
    """
    if not isinstance(rank, jax.Array):  # of inject_hyperparams: `init` checks it
        check.count(NAME, rank=rank)
    check.nonnegative(NAME, key=key)
    check.transform(NAME, "inner", inner)
    views.check_side(NAME, side)
    basis = svd() if basis is None else basis
    schedule = every_n() if schedule is None else schedule
    residual = discard_residual() if residual is None else residual
    check_parts(NAME, basis, schedule, residual, realign)
    has_memory = residual.init is not no_memory
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SubspaceState:
        check.matrix(NAME, params, batch_axes)
        check.concrete(NAME, rank=rank)
        params = paths.unboxed(params)
        ps, structure = jax.tree.flatten(params)
        *keys, later = [None] * (len(ps) + 1)
        if basis.draws:
            *keys, later = jax.random.split(random.typed(key), len(ps) + 1)

        def start(p: Any, key: Any) -> tuple[Any, ...]:
            batch, rows, cols = layout.shape(p, batch_axes)
            matrix, dtype = (*batch, rows, cols), numbers.wide_dtype(p)
            shapes = views.shapes(matrix, int(rank), side)
            starts = (
                jnp.zeros(shapes.projection, dtype),
                basis.init(shapes.basis, dtype, key),
                jnp.full((*batch, 1, 1), not p.size) if basis.lazy else (),
                residual.init(matrix, dtype),
            )
            return varying_as(starts, p)

        starts = structure.unflatten(map(start, ps, keys))
        zeros, bases, found, memories = tree.unzip(params, starts, 4)
        count = jnp.zeros([], jnp.int32)
        memory = varying_as(schedule.init(len(ps)), ps)
        inner_state = inner.init(zeros)
        if realign is not None:  # each device realigns when its own bases are renewed
            mask = schedule.renew(memory, count, len(ps))
            inner_state = varying_as(inner_state, mask)
        return SubspaceState(
            count=count,
            bases=bases,
            found=found if basis.lazy else (),
            schedule=memory,
            residual=memories if has_memory else (),
            key=data_of(later),
            inner=inner_state,
        )

    def update(
        updates: Updates, state: SubspaceState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, SubspaceState]:
        del params
        leaves, boxed = jax.tree.flatten(updates)
        structure = jax.tree.structure(paths.unboxed(updates))
        nothing = [()] * len(leaves)
        found = structure.flatten_up_to(state.found) if basis.lazy else nothing
        old = [*map(BasisState, structure.flatten_up_to(state.bases), found)]
        memories = structure.flatten_up_to(state.residual) if has_memory else nothing
        now, later = random.split(state.key, 2, key) if basis.draws else (None, None)

        def view(x: jax.Array, kept: BasisState, memory: Memory) -> View:
            floating = numbers.is_real(kept.data)
            dtype = kept.data.dtype if floating else numbers.wide_dtype(x)
            matrix = layout.as_matrix(x, batch_axes).astype(dtype)
            axis = views.projected_axis(matrix.shape, side)
            return View(residual.add_feedback(matrix, memory), axis)

        gs = [*map(view, leaves, old, memories)]
        mask = schedule.renew(state.schedule, state.count, len(gs))
        bases = renewal.renewed(basis, mask, old, gs, now)
        ps = renewal.vectors(basis, bases, gs)
        check.holds(NAME, fits(state, gs, ps), *OTHER_STATE)
        rs = renewal.projections(basis, bases, gs, ps)

        def realigned(realign: Realign) -> optax.OptState:
            changed = mask & (state.count > 0)

            def move(inner_state: optax.OptState) -> optax.OptState:
                old_ps = renewal.vectors(basis, old, gs)
                masks = jnp.broadcast_to(changed, len(gs))
                changes = map(renewal.change, masks, old_ps, ps, rs, gs)
                return realign(inner_state, structure.unflatten(changes), state.count)

            return when(jnp.any(changed), move, state.inner)

        inner_state = state.inner if realign is None else realigned(realign)
        directions, inner_state = inner.update(
            structure.unflatten(rs), inner_state, None, **extra
        )
        ds = jax.tree.leaves(directions)
        projected = [
            Projected(x.finite().g, p, r, d, x.axis, x.g)
            for x, p, r, d in zip(gs, ps, rs, ds)
        ]
        done = [*map(residual.combine, projected, memories)]
        u = boxed.unflatten(
            layout.like(u, x, batch_axes) for (u, _), x in zip(done, leaves)
        )
        fractions = lambda: renewal.fractions(projected)
        return numbers.like(u, updates), SubspaceState(
            count=numbers.increment(state.count),
            bases=structure.unflatten(x.data for x in bases),
            found=structure.unflatten(x.found for x in bases) if basis.lazy else (),
            schedule=schedule.update(state.schedule, mask, fractions),
            residual=structure.unflatten(m for _, m in done) if has_memory else (),
            key=data_of(later),
            inner=inner_state,
        )

    def fits(state: SubspaceState, gs: list[View], ps: list[jax.Array]) -> bool:
        """Whether the state is of this rank and residual; one of others might run unnoticed."""
        if isinstance(rank, Tracer):
            return True
        first = lambda: [residual.init(x.g.shape, x.g.dtype) for x in gs]
        shapes_of = lambda t: [x.shape for x in jax.tree.leaves(t)]
        bases = [views.shapes(x.g.shape, int(rank), side).basis for x in gs]
        of_residual = shapes_of(state.residual) == shapes_of(jax.eval_shape(first))
        return of_residual and shapes_of(ps) == bases

    return transform(init, update)


def data_of(key: jax.Array | None) -> Any:
    """The data of `key`, for the state; `()` for `None`."""
    return () if key is None else jax.random.key_data(key)
