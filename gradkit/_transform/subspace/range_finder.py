"""GaLore by the randomized SVD of Halko, Martinsson and Tropp, one leaf after another."""

from gradkit import subspace
from gradkit._core import random
from gradkit._core.factory import factory
from gradkit._core.matrix import layout
from gradkit._core.types import AnyTransform, Hyper, Transform


@factory
def project_by_range_finder(
    inner: AnyTransform,
    *,
    rank: int = 128,
    every: int = 200,
    scale: Hyper = 0.25,
    key: random.Key = 0,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Project each matrix onto its leading singular vectors, found by a randomized SVD.

    $$Q = \mathrm{orth}(g_t \Omega), \quad \Omega_{ij} \sim U(-1, 1), \qquad
      P_t = Q \; (\text{first rank left singular vectors of } Q^T g_t)$$
    $$u_t = \mathrm{scale} \; P_t \, \mathrm{inner}(P_t^T g_t)$$

    for a $g$ with no more rows than columns; a tall one is projected along its columns. $\Omega$
    has `rank + 8` columns. All bases are found at the first update; then leaf `i` of `n` is
    renewed where `every` divides $t - 1 - \lfloor i \, \mathrm{every} / n \rfloor$, so that no
    update bears the cost of all.

    Args:
        inner: any transform; is given a tree like the parameters, of the projections.
        every: update interval of the projector of each leaf.
        scale: factor on what `inner` returns.
        rank, key, batch_axes: see the glossary.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols)*min(rows, cols) + 1` bytes a leaf, `12` once, and the
        state of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `16*size*min(rank, rows, cols) + 88*size` a leaf, and those of `inner`.
    Paper: Halko, Martinsson and Tropp, "Finding structure with randomness: Probabilistic
        algorithms for constructing approximate matrix decompositions", arXiv:0909.4061,
        Algorithms 4.1 and 5.1; used where GaLore has an SVD.
    Departure: the paper's $\Omega$ is normal; uniform numbers span as much and cost less. The
        small SVD is an eigendecomposition of $Q^T g g^T Q$. Signs are fixed:
        $\sum_k (2 + \cos k) p_k > 0$ for each vector. A matrix keeps its basis while its gradient
        is zero, and gets its first one from its first nonzero gradient.
    Limits: where singular values fall slowly the basis holds less of the gradient than the best
        one. The moments of `inner` are kept when the basis changes, and read in the new one. An
        update cannot be differentiated through its factorizations.

    >>> tx = gk.project_by_range_finder(optax.identity(), rank=1, scale=1.0)
    >>> g = jnp.outer(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0, 0.0]))
    >>> bool(jnp.allclose(tx.update(g, tx.init(g))[0], g, atol=1e-5))  # rank 1 already
    True
    """
    return subspace.project(
        inner,
        rank,
        basis=subspace.randomized_svd(),
        schedule=subspace.staggered(every),
        residual=subspace.discard_residual(scale),
        key=key,
        batch_axes=batch_axes,
    )
