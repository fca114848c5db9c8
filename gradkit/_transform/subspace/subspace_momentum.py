"""Subspace momentum: momentum on the leading singular vectors, and the residual as it is."""

from gradkit import subspace
from gradkit._core.factory import factory
from gradkit._core.matrix import layout
from gradkit._core.types import AnyTransform, Transform


@factory
def project_by_subspace_momentum(
    inner: AnyTransform,
    *,
    rank: int = 128,
    every: int = 200,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Project each matrix as GaLore does, and add the residual as it is.

    $$r_t = P_t^T g_t, \qquad u_t = P_t \, \mathrm{inner}(r_t) + (g_t - P_t r_t)$$

    with the basis $P_t$ of `project_by_svd`: the first `rank` left singular vectors of $g_t$,
    renewed where `every` divides $t - 1$; right ones for a tall $g$. The state of
    `inner` is reset in each new basis.

    Args:
        inner: any transform, such as an EMA; is given a tree like the parameters, of the
            projections.
        every: update interval of the projector.
        rank, batch_axes: see the glossary.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols)*min(rows, cols) + 1` bytes a leaf, `4` once, and the
        state of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `3*size*min(rows, cols) + 8*size*min(rank, rows, cols) + 16*size`
        a leaf, and those of `inner`.
    Paper: Nguyen and Nguyen, "Efficient Adaptive Optimization via Subset-Norm and
        Subspace-Momentum: Fast, Memory-Reduced Training with Convergence Guarantees",
        arXiv:2411.07120, the subspace momentum.
    Departure: the authors' code renews where `every` divides $t$; that update still moves by the
        old momentum, in the new basis, and drops its gradient. The basis is that of
        `project_by_svd`: eigenvectors of $g g^T$ with fixed signs.
    Limits: the residual has no momentum: its noise is not averaged. An update cannot be
        differentiated through its factorizations.

    >>> tx = gk.project_by_subspace_momentum(optax.identity(), rank=1)
    >>> g = jnp.array([[3.0, 1.0], [0.0, 2.0]])
    >>> bool(jnp.allclose(tx.update(g, tx.init(g))[0], g, atol=1e-5))  # all of it moves
    True
    """
    return subspace.project(
        inner,
        rank,
        basis=subspace.svd(),
        schedule=subspace.every_n(every),
        residual=subspace.pass_residual(),
        realign=subspace.reset_moments(inner),
        batch_axes=batch_axes,
    )
