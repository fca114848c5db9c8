"""Projections onto bases, and the renewal of bases."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import norms, tree
from gradkit._core.condition import when
from gradkit._core.matrix import linalg
from gradkit.subspace import bases
from gradkit.subspace.parts import Basis, BasisChange, BasisState, Projected
from gradkit.subspace.views import View

States = Sequence[BasisState]  # one for each leaf
Views = Sequence[View]


def renewed(
    basis: Basis, mask: jax.Array, old: States, views: Views, key: Any
) -> list[BasisState]:
    """The bases, renewed where `mask` is true.

    A lazy basis stays as it is while the gradient is zero, and is also renewed where a matrix has
    none yet. All work is inside conditions, so that updates without a renewal do not pay for it.
    """
    if mask.ndim:  # one for each leaf

        def renew_leaf(i: int, state: BasisState, view: View) -> BasisState:
            leaf_key = None if key is None else jax.random.fold_in(key, i)
            return renewed(basis, mask[i], [state], [view], leaf_key)[0]

        return [renew_leaf(i, *leaf) for i, leaf in enumerate(zip(old, views))]

    def renew(old: States) -> list[jax.Array]:
        return basis.renew(old, [x.finite().transposed() for x in views], key)

    def renew_all(old: States) -> list[BasisState]:
        return [*map(BasisState, renew(old), (state.found for state in old))]

    def renew_nonzero(old: States) -> States:
        masks = [
            (mask | ~state.found) & bases.nonzero(x.g) for state, x in zip(old, views)
        ]

        def select(old: States) -> list[BasisState]:
            return [
                BasisState(jnp.where(new, data, state.data), state.found | new)
                for new, data, state in zip(masks, renew(old), old)
            ]

        return when(tree.any_true(masks), select, old)

    if not basis.lazy:
        return when(mask, renew_all, [*old])
    missing = tree.any_true([~state.found for state in old])
    return when(mask | missing, renew_nonzero, [*old])


def vectors(basis: Basis, states: States, views: Views) -> list[jax.Array]:
    """The basis of every leaf."""
    return [
        basis.vectors(state.data, x.g.shape[x.axis], x.g.dtype)
        for state, x in zip(states, views)
    ]


def projections(
    basis: Basis, states: States, views: Views, ps: Sequence[jax.Array]
) -> list[jax.Array]:
    """Every gradient in its basis `p`.

    Non-finite entries of a gradient count as zero, where there are any. So do entries of the
    projection that may be rounding of the row or column that they are made of.
    """

    def project(views: Views, ps: Sequence[jax.Array]) -> list[jax.Array]:
        with jax.default_matmul_precision("highest"):
            return [*map(View.project, views, ps)]

    def project_finite(_: Any) -> list[jax.Array]:
        ps = vectors(basis, states, views)  # again, as a loop would copy those outside
        return project([x.finite() for x in views], ps)

    rs = project(views, ps)
    bad = tree.any_true([~jnp.isfinite(jnp.sum(r)) for r in rs])
    rs = when(bad, project_finite, rs)
    return [*map(linalg.above_rounding, rs, norms.finite_along(*views))]


def change(
    mask: jax.Array, old: jax.Array, new: jax.Array, r: jax.Array, x: View
) -> BasisChange:
    """The change of one leaf from its old basis to the new one; none where `mask` is false."""
    same = jnp.eye(new.shape[-1], dtype=new.dtype)
    return BasisChange(r, jnp.where(mask, new.mT @ old, same), x.axis)


def fractions(leaves: Sequence[Projected]) -> jax.Array:
    """The norm of each projection over that of its gradient."""
    rs, gs = [x.r for x in leaves], [x.g for x in leaves]
    return tree.ratio(norms.of_leaves(rs), norms.of_leaves(gs))
