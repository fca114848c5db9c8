"""Projection onto columns of the discrete cosine transform, kept as indices."""

from gradkit import subspace
from gradkit._core.factory import factory
from gradkit._core.matrix import layout
from gradkit._core.types import AnyTransform, Hyper, Transform


@factory
def project_by_dct(
    inner: AnyTransform,
    *,
    rank: int = 128,
    overlap: Hyper = 0.9,
    scale: Hyper = 0.25,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Project each matrix onto the cosine frequencies in which it has the most energy.

    $$C_{ik} = \sqrt{2 / m} \cos\left(\frac{\pi (2i + 1) k}{2m}\right), \quad
      C_{i0} = \sqrt{1 / m}, \qquad u_t = \mathrm{scale} \; P_t \, \mathrm{inner}(P_t^T g_t)$$

    for a $g$ of $m$ rows and at least as many columns; a tall one is projected along its columns.
    $P_t$ has the columns $k$ of $C$ with the `rank` largest $\lVert C_k^T g \rVert$. They are
    chosen at the first update, and again after $\lVert P^T g \rVert / \lVert g \rVert$ fell to
    `overlap` of what it was when they were chosen.

    Args:
        inner: any transform; is given a tree like the parameters, of the projections.
        overlap: columns are chosen again once the fraction of the gradient's norm in them is
            `overlap` times what it was at first; from 0, never, to 1, always.
        scale: factor on what `inner` returns.
        rank, batch_axes: see the glossary.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols) + 8` bytes a leaf, `4` once, and the state
        of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `3*size*min(rows, cols) + 9*size*min(rank, rows, cols) + 24*size`
        a leaf, and those of `inner`.
    Paper: none. The choice is that of Modoranu and others, "FFT-based Dynamic Subspace
        Selection for Low-Rank Adaptive Optimization of Large Language Models",
        arXiv:2505.17967; the basis that of Ahmed, Natarajan and Rao,
        doi:10.1109/T-C.1974.223784.
    Departure: columns are chosen when the fraction falls, not every few updates. The projection
        is a product with the basis, not an FFT, which costs less only above some thousand rows.
    Limits: neurons have no order, so cosines hold little more of a gradient than random
        directions would; they take almost no memory.

    >>> tx = gk.project_by_dct(optax.identity(), rank=1, scale=1.0)
    >>> g = jnp.outer(jnp.ones(2), jnp.array([3.0, 4.0, 0.0]))  # the same in all rows
    >>> bool(jnp.allclose(tx.update(g, tx.init(g))[0], g, atol=1e-5))
    True
    """
    return subspace.project(
        inner,
        rank,
        basis=subspace.dct(),
        schedule=subspace.on_energy_drop(overlap),
        residual=subspace.discard_residual(scale),
        batch_axes=batch_axes,
    )
