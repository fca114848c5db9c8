"""Fira: GaLore, and the residual scaled as `inner` scales the projection."""

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
    r"""Project each matrix as GaLore does, and add the residual, scaled as `inner` scales.

    $$r_t = P_t^T g_t, \quad d_t = \mathrm{inner}(r_t), \quad
      s_t = (g_t - \mathrm{scale} \, P_t r_t) \, \mathrm{diag}\left(
      \frac{\lVert d_t[:, i] \rVert}{\lVert r_t[:, i] \rVert + \epsilon}\right)$$
    $$s_t \leftarrow s_t \min(1,
      \max(\mathrm{growth} \, (\lVert s_{t-1} \rVert + \epsilon), \;
      \mathrm{floor} \, \sqrt{\mathrm{size}}) / \lVert s_t \rVert),
      \qquad u_t = \mathrm{scale} \, P_t d_t + s_t$$

    with the basis $P_t$ of `project_by_svd`: the first `rank` left singular vectors of $g_t$,
    renewed where `every` divides $t - 1$. For a tall $g$ they are right singular vectors, and
    rows take the place of columns. The second line is the norm-growth limiter.

    Args:
        inner: any transform; is given a tree like the parameters, of the projections.
        every: update interval of the projector.
        scale: factor on what `inner` returns, and the fraction of $P r$ that is taken from $g$.
        eps: added to the norms of the columns of $r$ and to the last norm of $s$.
        rank, growth, floor, batch_axes: see the glossary.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols)*min(rows, cols) + 5` bytes a leaf, `4` once, and the state
        of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `3*size*min(rows, cols) + 11*size*min(rank, rows, cols) + 40*size`
        a leaf, and those of `inner`.
    Paper: Chen and others, "Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
        Constraint?", arXiv:2410.01623, Algorithm 1.
    Departure: as in the authors' code, which gave the paper's results, `scale` does not multiply
        $s$, which contains a part of $P r$ if `scale` is below 1; in the paper $s$ is made of
        $g - P r$, and multiplied by `scale`. With `scale=1.0` they agree. The norm of $s$ may
        grow freely from its initial zero, and a later zero does not reset the limit; the paper
        and the authors' code would restart at $\epsilon$ and need thousands of updates. The basis
        is that of `project_by_svd`: eigenvectors of $g g^T$ with fixed signs.
    Limits: an update that renews the bases costs an eigendecomposition for each matrix. A column
        of $r$ near zero beside a large residual makes a large $s$: nothing limits the first one.
        The limit falls at once and rises by `growth` an update: after gradients a thousand times
        smaller, for one update or for many, the residual needs about 550 updates to come back to
        half its norm, unless `floor` allows more. A `floor` of 0.1 shortens this to 230 at most,
        where `inner` is Adam, whose directions have an RMS of about 1. An update cannot be
        differentiated through its factorizations.

    >>> tx = gk.project_by_fira(optax.identity(), rank=1, scale=1.0)
    >>> g = jnp.diag(jnp.array([3.0, 2.0]))  # the second column has no projection: its factor is 0
    >>> tx.update(g, tx.init(g))[0].tolist()
    [[3.0, 0.0], [0.0, 0.0]]
    """
    return subspace.project(
        inner,
        rank,
        basis=subspace.svd(),
        schedule=subspace.every_n(every),
        residual=subspace.fira_residual(scale, growth=growth, eps=eps, floor=floor),
        batch_axes=batch_axes,
    )
