"""GaLore: any transform, on the gradient projected onto its leading singular vectors."""

from gradkit import subspace
from gradkit._core.factory import factory
from gradkit._core.matrix import layout
from gradkit._core.types import AnyTransform, Hyper, Transform


@factory
def project_by_svd(
    inner: AnyTransform,
    *,
    rank: int = 128,
    every: int = 200,
    scale: Hyper = 0.25,
    batch_axes: layout.Axes = (),
    side: subspace.Side = "small",
) -> Transform:
    r"""Project each matrix onto its leading singular vectors, and let `inner` act there.

    $$P_t = \text{first rank left singular vectors of } g_t
      \text{ if every divides } t - 1, \text{ else } P_{t-1}$$
    $$u_t = \mathrm{scale} \; P_t \, \mathrm{inner}(P_t^T g_t)$$

    for a $g$ whose rows are projected. If its columns are, they are right singular vectors, and
    $u_t = \mathrm{scale} \; \mathrm{inner}(g_t P_t) P_t^T$.

    Args:
        inner: any transform; is given a tree like the parameters, of the projections.
        every: update interval of the projector.
        scale: factor on what `inner` returns.
        side: which side is projected: the "small" one, or the "large" one, with larger bases and a
            smaller state of `inner`. With Adam the large side takes less state in all.
        rank, batch_axes: see the glossary.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols)*(min if side == "small" else max)(rows, cols) + 1`
        bytes a leaf, `4` once, and the state of `inner` on leaves of
        `min(rank, rows, cols)*(max if side == "small" else min)(rows, cols)` entries.
    Flops: at most `3*size*min(rows, cols) + 8*size*min(rank, rows, cols) + 16*size`
        a leaf, and those of `inner`.
    Paper: Zhao and others, "GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
        Projection", arXiv:2403.03507, Algorithm 1.
    Departure: singular vectors come from the eigenvectors of $g g^T$. In float32 this loses
        singular values under about 1/1000 of the largest; fixed directions, made orthonormal to
        the other vectors, replace theirs. Signs are fixed: $\sum_k (2 + \cos k) p_k > 0$ for each
        vector. As in the authors' code, the moments of `inner` are kept when the basis changes,
        and used in the new basis as they are. A matrix keeps its basis while its gradient is
        zero, and gets its first one from its first nonzero gradient. `inner` is given zeros in
        place of entries that may be rounding errors.
    Limits: an update that renews the bases costs an eigendecomposition for each matrix. A gradient
        with no component in the basis gives no update. An update cannot be differentiated through
        its factorizations.

    >>> tx = gk.project_by_svd(optax.identity(), rank=1, scale=1.0)
    >>> g = jnp.outer(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0, 0.0]))
    >>> bool(jnp.allclose(tx.update(g, tx.init(g))[0], g, atol=1e-5))  # rank 1 already
    True
    """
    return subspace.project(
        inner,
        rank,
        basis=subspace.svd(),
        schedule=subspace.every_n(every),
        residual=subspace.discard_residual(scale),
        batch_axes=batch_axes,
        side=side,
    )
