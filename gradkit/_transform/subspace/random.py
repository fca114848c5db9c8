"""APOLLO: the whole gradient, each column scaled as `inner` scales a random projection of it."""

from gradkit import subspace
from gradkit._core import random
from gradkit._core.factory import factory
from gradkit._core.matrix import layout
from gradkit._core.types import AnyTransform, Hyper, Transform


@factory
def project_by_random(
    inner: AnyTransform,
    *,
    rank: int = 256,
    every: int = 200,
    scale: Hyper = 1.0,
    growth: Hyper = 1.01,
    eps: Hyper = 1e-8,
    floor: Hyper = 0.0,
    key: random.Key = 0,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Scale each column of a matrix as `inner` scales a random projection of it.

    $$r_t = P^T g_t, \quad P_{ij} = \pm 1 / \sqrt{\mathrm{rank}}, \qquad
      d_t = \mathrm{inner}(r_t), \qquad s_t = g_t \, \mathrm{diag}\left(
      \frac{\lVert d_t[:, i] \rVert}{\lVert r_t[:, i] \rVert + \epsilon}\right)$$
    $$s_t \leftarrow s_t \min(1,
      \max(\mathrm{growth} \, (\lVert s_{t-1} \rVert + \epsilon), \;
      \mathrm{floor} \, \sqrt{\mathrm{size}}) / \lVert s_t \rVert),
      \qquad u_t = \mathrm{scale} \; s_t$$

    for a $g$ with no more rows than columns; in a tall one each row is scaled. At each update the
    signs of $P$ are made from one seed for each column. Seeds are drawn anew where `every`
    divides $t - 1$.

    Args:
        inner: any transform; is given a tree like the parameters, of the projections.
        rank: rows of the random projection, at most the small side of a matrix.
        every: update interval of the projector.
        scale: factor on the whole direction.
        eps: added to the norms of the columns of $r$ and to the last norm of $s$.
        growth, floor, key, batch_axes: see the glossary.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols) + 4` bytes a leaf, `12` once, and the state
        of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `6*size*min(rank, rows, cols) + 160*min(rank, rows, cols)*min(rows, cols)
        + 32*size` a leaf, and those of `inner`.
    Paper: Zhu and others, "APOLLO: SGD-like Memory, AdamW-level Performance",
        arXiv:2412.05270, Algorithm 1, by channels.
    Departure: the paper's $P_{ij}$ are normal, of the same mean and variance; signs preserve
        norms as well, at a fraction of the cost. The scale of the authors' code is the square of
        `scale`. The norm of $s$ may grow freely from its initial zero, and a later zero does not
        reset the limit; in the authors' code it restarts at $\epsilon$. The authors' code stores
        $P$; here it is made anew from its seeds.
    Limits: directions are those of the gradient: with momentum as `inner`, nothing but their norms
        is averaged.

    >>> tx = gk.project_by_random(optax.scale_by_sign(), rank=1)  # each column has a norm of 1
    >>> u, _ = tx.update(jnp.diag(jnp.array([3.0, 0.1])), tx.init(jnp.zeros((2, 2))))
    >>> bool(jnp.all(jnp.diag(u) > 0))  # the directions of the gradient
    True
    """
    return subspace.project(
        inner,
        rank,
        basis=subspace.rademacher(),
        schedule=subspace.every_n(every),
        residual=subspace.norm_matched(scale, growth=growth, eps=eps, floor=floor),
        key=key,
        batch_axes=batch_axes,
    )
