"""Projections onto bases, and the renewal of bases."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import norms, numbers, tree
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
    """The states of the bases, renewed where `mask`, `[]` or `[leaves]`, is true.

    `views` hold the gradients. A lazy basis is kept while its gradient is zero, and is found at
    the first gradient that is not. An update without a renewal does not pay for one.
    """
    if mask.ndim:  # [leaves]

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
    """The basis of every leaf, `[*batch, projected, rank]`."""
    return [
        basis.vectors(state.data, x.g.shape[x.axis], x.g.dtype)
        for state, x in zip(states, views)
    ]


def projections(
    basis: Basis, states: States, views: Views, ps: Sequence[jax.Array]
) -> list[jax.Array]:
    """The projection of every gradient onto its basis, one of `ps`.

    Non-finite entries of gradients count as zero. So do entries of projections that may be
    rounding errors.
    """

    def project(views: Views, ps: Sequence[jax.Array]) -> list[jax.Array]:
        with jax.default_matmul_precision("highest"):
            return [*map(View.project, views, ps)]

    def project_finite(_: Any) -> list[jax.Array]:
        ps = vectors(basis, states, views)  # computed again: a loop would copy `ps`
        return project([x.finite() for x in views], ps)

    rs = project(views, ps)
    bad = tree.any_true([r != numbers.summable(r, x.g.size) for r, x in zip(rs, views)])
    rs = when(bad, project_finite, rs)
    return [*map(linalg.above_rounding, rs, norms.finite_along(*views))]


def change(
    mask: jax.Array, old: jax.Array, new: jax.Array, r: jax.Array, x: View
) -> BasisChange:
    """The change from the basis `old` of a leaf to `new`; the identity where `mask` is false.

    `r` is the projection onto `new`.
    """
    same = jnp.eye(new.shape[-1], dtype=new.dtype)
    return BasisChange(r, jnp.where(mask, new.mT @ old, same), x.axis)


def fractions(leaves: Sequence[Projected]) -> jax.Array:
    """The norm of each projection over that of its gradient, `[leaves]`."""
    rs, gs = [x.r for x in leaves], [x.g for x in leaves]
    return tree.ratio(norms.of_leaves(rs), norms.of_leaves(gs))
