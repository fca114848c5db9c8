"""APOLLO: the whole gradient, its columns as long as `inner` makes their random shadows."""

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
    $$s_t \leftarrow s_t \min(1, \mathrm{growth} \,
      (\lVert s_{t-1} \rVert + \epsilon) / \lVert s_t \rVert),
      \qquad u_t = \mathrm{scale} \; s_t$$

    for a $g$ with no more rows than columns; a tall one by its rows. At each update the signs
    of $P$ are made from a seed a column, drawn anew where `every` divides $t - 1$.

    Args:
        inner: any transform; sees a tree like the parameters, the leaves with their small side
            cut to `rank`.
        rank: length of the shadow of a column, at most the small side.
        every: updates between two draws.
        scale: times the whole direction.
        growth: how much longer $s$ may get in one update, as a factor.
        eps: added to the norms of the columns of $r$ and of the last $s$.
        floor: the root mean square up to which $s$ may always grow, in units of what `inner`
            returns.
        key: a seed or a `jax.random` key; the same key gives the same run.
        batch_axes: axes that number matrices, such as `(0,)` for scanned layers. Of the
            others the last is the columns, and the rest are the rows.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols) + 4` bytes a leaf, `12` once, and the state
        of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `6*size*min(rank, rows, cols) + 160*min(rank, rows, cols)*min(rows, cols)
        + 30*size` a leaf, and those of `inner`.
    Paper: Zhu and others, "APOLLO: SGD-like Memory, AdamW-level Performance",
        arXiv:2412.05270, Algorithm 1, by channels.
    Departure: the paper's $P_{ij}$ are normal, of the same mean and variance; signs keep lengths
        as well, and cost a fraction to make. `scale` multiplies; the release's is the square of
        it. $s$ may grow freely from the zero it begins with, and one of zeros is not counted,
        where the release's restarts at $\epsilon$. The release keeps $P$.
    Limits: directions are the gradient's own: with plain momentum as `inner` nothing is
        averaged but the lengths.

    >>> tx = gk.project_by_random(optax.scale_by_sign(), rank=1)  # a sign has length 1
    >>> u, _ = tx.update(jnp.diag(jnp.array([3.0, 0.1])), tx.init(jnp.zeros((2, 2))))
    >>> bool(jnp.all(jnp.diag(u) > 0))  # the gradient's directions, other lengths
    True
    """
    return subspace.project(
        inner,
        rank,
        subspace.rademacher(),
        subspace.every_n(every),
        subspace.norm_matched(scale, growth=growth, eps=eps, floor=floor),
        key=key,
        batch_axes=batch_axes,
    )
