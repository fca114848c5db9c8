"""Fira: GaLore, and what GaLore leaves out, scaled as `inner` scaled what it saw."""

from gradkit import subspace
from gradkit._core.factory import factory
from gradkit._core.matrix import layout
from gradkit._core.types import AnyTransform, Hyper, Transform


@factory
def project_by_fira(
    inner: AnyTransform,
    *,
    rank: int = 128,
    every: int = 200,
    scale: Hyper = 0.25,
    growth: Hyper = 1.01,
    eps: Hyper = 1e-8,
    floor: Hyper = 0.0,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Let `inner` act where each matrix is largest, and the rest follow at `inner`'s scale.

    $$r_t = P_t^T g_t, \quad d_t = \mathrm{inner}(r_t), \quad
      s_t = (g_t - \mathrm{scale} \, P_t r_t) \, \mathrm{diag}\left(
      \frac{\lVert d_t[:, i] \rVert}{\lVert r_t[:, i] \rVert + \epsilon}\right)$$
    $$s_t \leftarrow s_t \min(1,
      \max(\mathrm{growth} \, (\lVert s_{t-1} \rVert + \epsilon), \;
      \mathrm{floor} \, \sqrt{\mathrm{size}}) / \lVert s_t \rVert),
      \qquad u_t = \mathrm{scale} \, P_t d_t + s_t$$

    with the basis $P_t$ of `project_by_svd`: the first `rank` left singular vectors of $g_t$,
    renewed where `every` divides $t - 1$; right ones and rows for a tall $g$.

    Args:
        inner: any transform; sees a tree like the parameters, the leaves with their small side
            cut to `rank`.
        rank: directions in which `inner` acts, at most the small side.
        every: updates between two looks at the gradient's singular vectors.
        scale: times what `inner` returns, and the part of the gradient that $s$ leaves out.
        growth: how much longer $s$ may get in one update, as a factor.
        eps: added to the norms of the columns of $r$ and of the last $s$.
        floor: the root mean square up to which $s$ may always grow, in units of what `inner`
            returns.
        batch_axes: axes that number matrices, such as `(0,)` for scanned layers. Of the
            others the last is the columns, and the rest are the rows.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols)*min(rows, cols) + 4` bytes a leaf, `4` once, and the state
        of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `3*size*min(rows, cols) + 11*size*min(rank, rows, cols) + 40*size`
        a leaf, and those of `inner`.
    Paper: Chen and others, "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
        Constraint?", arXiv:2410.01623, Algorithm 1.
    Departure: as in the release, with which the paper's results were made, $s$ is apart from
        `scale`, and with `scale` below 1 has some of what `inner` saw; the paper's $s$ is
        $g - P r$, and scaled. With `scale=1.0` they agree. $s$ may grow freely from the zero it
        begins with, and one of zeros is not counted, where both would restart at $\epsilon$ and
        need thousands of updates. The basis is that of `project_by_svd`, with its departures.
    Limits: the step that renews the bases costs an eigendecomposition a matrix. A column of $r$
        near zero beside a large rest makes a long $s$: nothing limits the first one. The limit
        falls at once and rises by `growth` an update: after gradients a thousand times smaller, for
        one update or for many, the rest needs about 550 updates to come back to half its length,
        but for what `floor` allows. A `floor` of 0.1 leaves it 230 at most, where `inner` is Adam,
        whose directions are about 1. An update cannot be differentiated through its factorizations.

    >>> tx = gk.project_by_fira(optax.identity(), rank=1, scale=1.0)
    >>> g = jnp.diag(jnp.array([3.0, 2.0]))  # what inner does not see needs a scale
    >>> tx.update(g, tx.init(g))[0].tolist()
    [[3.0, 0.0], [0.0, 0.0]]
    """
    return subspace.project(
        inner,
        rank,
        subspace.svd(),
        subspace.every_n(every),
        subspace.fira_residual(scale, growth=growth, eps=eps, floor=floor),
        batch_axes=batch_axes,
    )
