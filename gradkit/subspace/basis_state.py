"""Matrices seen in bases of few columns: which side, what is seen, and when it is renewed."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, tree
from gradkit._core.condition import when
from gradkit._core.matrix import layout, linalg
from gradkit._core.norms import of_finite, of_leaves
from gradkit.subspace import bases
from gradkit.subspace.bases import Basis, Kept, laid_out
from gradkit.subspace.realign import BasisChange, Realign
from gradkit.subspace.residuals import Projected

Side = Literal["small", "large"]  # which is seen in a basis


def check_side(method: str, side: Side) -> None:
    """`side` is one of the two."""
    check.holds(
        method,
        side in ("small", "large"),
        "side must be 'small' or 'large'",
        repr(side),
        "Choose which side of each matrix is cut to rank.",
    )


class Sizes(NamedTuple):
    """The shapes of one leaf upright, of its basis, and of what `inner` sees of it."""

    leaf: tuple[int, ...]
    basis: tuple[int, ...]
    low: tuple[int, ...]
    dtype: Any


def sizes(p: Any, rank: int, side: Side, batch_axes: layout.Axes) -> Sizes:
    """The shapes of the leaf `p`, of which one side is cut to `rank`."""
    front, rows, cols = layout.shape(p, batch_axes)
    kept = min(rank, rows, cols)
    axis = seen_axis((rows, cols), side)
    low = (rows, kept) if axis == -1 else (kept, cols)
    seen = (rows, cols)[axis]
    return Sizes(
        (*front, rows, cols),
        (*front, seen, kept),
        (*front, *low),
        numbers.wide_dtype(p),
    )


def seen_axis(shape: tuple[int, ...], side: Side) -> int:
    """The axis that is seen in a basis; of a square matrix the rows."""
    rows, cols = shape[-2:]
    return -2 if rows == cols or (rows < cols) == (side == "small") else -1


def upright(x: jax.Array, kept: Kept, batch_axes: layout.Axes) -> jax.Array:
    """The leaf `x` as `[*batch, rows, cols]`, in the dtype of its basis."""
    floating = jnp.issubdtype(kept.dtype, jnp.floating)
    dtype = kept.dtype if floating else numbers.wide_dtype(x)
    return layout.as_matrix(x, batch_axes).astype(dtype)


def see(
    basis: Basis,
    kept: Sequence[Kept],
    gs: Sequence[jax.Array],
    axes: Sequence[int],
) -> list[jax.Array]:
    """Every gradient in its basis; non-finite entries count as zero where there are any.

    So do those that may be rounding of the row or column of the gradient that they are made of.
    """

    def look(gs: Sequence[jax.Array]) -> list[jax.Array]:
        ps = vectors(basis, kept, gs, axes)  # again: a loop would copy them
        with jax.default_matmul_precision("highest"):
            return [
                g @ p if axis == -1 else laid_out(p.mT) @ g
                for p, g, axis in zip(ps, gs, axes)
            ]

    low = look(gs)
    bad = tree.any_true([~jnp.isfinite(jnp.sum(r)) for r in low])
    low = when(bad, lambda _: look([numbers.finite(g) for g in gs]), low)
    norms = of_finite(*zip(gs, axes))
    return [*map(linalg.above_rounding, low, norms)]


def vectors(
    basis: Basis,
    kept: Sequence[Kept],
    gs: Sequence[jax.Array],
    axes: Sequence[int],
) -> list[jax.Array]:
    """The basis of every gradient, from what is kept of it."""
    seen = [g.shape[axis] for g, axis in zip(gs, axes)]
    return [basis.vectors(k, n, g.dtype) for k, n, g in zip(kept, seen, gs)]


def renew(
    basis: Basis,
    due: jax.Array,
    kept: list[Kept],
    gs: Sequence[jax.Array],
    axes: Sequence[int],
    key: Any,
) -> list[Kept]:
    """What is kept of every basis, renewed where it is `due`.

    A basis that `waits` is kept where the gradient is zero, and due wherever there is none yet.
    """

    def look(kept: list[Kept]) -> list[Kept]:
        finite = map(numbers.finite, gs)
        lying = [g.mT if axis == -1 else g for g, axis in zip(finite, axes)]
        return basis.renew(kept, lying, key)

    def look_where_nonzero(kept: list[Kept]) -> list[Kept]:
        news = [(due | bases.is_none(k)) & bases.nonzero(g) for k, g in zip(kept, gs)]
        found = lambda kept: [*map(jnp.where, news, look(kept), kept)]
        return when(tree.any_true(news), found, kept)

    if due.ndim:  # each by itself

        def one(i: int, k: Kept, g: jax.Array, axis: int) -> Kept:
            own = None if key is None else jax.random.fold_in(key, i)
            return renew(basis, due[i], [k], [g], [axis], own)[0]

        return [one(i, *leaf) for i, leaf in enumerate(zip(kept, gs, axes))]
    if not basis.waits:
        return when(due, look, kept)
    maybe = due | tree.any_true([*map(bases.may_be_none, kept)])
    return when(maybe, look_where_nonzero, kept)


def aligned(
    align: Realign | None,
    state: Any,
    due: jax.Array,
    low: Sequence[jax.Array],
    news: Sequence[jax.Array],
    olds: Callable[[], Sequence[jax.Array]],
    axes: Sequence[int],
    step: jax.Array,
    like_state: Callable[[Iterable[Any]], Any],
) -> Any:
    """The `state` of what sees `low`, in the basis `news` where `due`, from the basis `olds`."""
    if align is None:
        return state

    def move(state: Any) -> Any:
        dues = jnp.broadcast_to(due, (len(low),))
        kept = [jnp.eye(p.shape[-1], dtype=p.dtype) for p in news]
        changed = [new.mT @ old for new, old in zip(news, olds())]
        cs = [jnp.where(*x) for x in zip(dues, changed, kept)]
        turns = like_state(BasisChange(*x) for x in zip(low, cs, axes))
        return align(state, turns, step)

    return when(jnp.any(due), move, state)


def shares(seen: Sequence[Projected]) -> jax.Array:
    """The norm of what is in the basis over the norm of the gradient, by leaf."""
    return tree.ratio(of_leaves([x.r for x in seen]), of_leaves([x.g for x in seen]))
