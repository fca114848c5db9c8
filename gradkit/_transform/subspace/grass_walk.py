"""GrassWalk: projection onto a subspace that walks at random, with moments rotated along."""

from gradkit import subspace
from gradkit._core import random
from gradkit._core.factory import factory
from gradkit._core.matrix import layout
from gradkit._core.types import AnyTransform, Hyper, Transform


@factory
def project_by_grass_walk(
    inner: AnyTransform,
    *,
    rank: int = 128,
    every: int = 100,
    scale: Hyper = 0.25,
    angle: Hyper = 0.5,
    growth: Hyper = 1.01,
    eps: Hyper = 1e-8,
    floor: Hyper = 0.0,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    key: random.Key = 0,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Project each matrix onto a subspace that walks on the Grassmannian, and add the residual.

    Where `every` divides $t - 1$, with $Z_{ij} \sim N(0, 1)$,

    $$X = \frac{\mathrm{angle}}{\sqrt m} (I - P P^T) Z, \quad X^T X = S^2, \qquad
      P \leftarrow P \cos S + X S^{-1} \sin S$$

    $$C = P_t^T P_{t-1}, \qquad m \leftarrow C m, \qquad
      v \leftarrow |C^{\circ 2} (v - w \, m^{\circ 2}) + w \, (C m)^{\circ 2}|, \qquad
      w = \frac{1 - b_2^t}{(1 - b_1^t)^2}$$
    $$r = P^T g, \quad d = \mathrm{inner}(r), \quad
      s = (g - \mathrm{scale} \, P r) \, \mathrm{diag}\left(
      \frac{\lVert d[:, i] \rVert}{\lVert r[:, i] \rVert + \epsilon}\right), \qquad
      u = \mathrm{scale} \, P d + s$$

    for a $g$ with no more rows than columns; a tall one is projected along its columns. $m$ and
    $v$ are the fields `mu` and `nu` of whatever `inner` keeps. The norm of $s$ grows by at most
    `growth` in one update, as in `project_by_fira`.

    Args:
        inner: any transform; is given a tree like the parameters, of the projections.
        every: updates between two steps of the walk.
        scale: factor on what `inner` returns, and the fraction of $P r$ that is taken from $g$.
        angle: length of a step of the walk, in radians: about the largest angle between the old
            subspace and the new one.
        eps: added to the norms of the columns of $r$ and to the last norm of $s$.
        b1: decay of the EMA `mu` that `inner` keeps.
        b2: decay of the EMA of squares `nu` that `inner` keeps.
        rank, growth, floor, key, batch_axes: see the glossary.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols)*min(rows, cols) + 5` bytes a leaf, `12` once, and the state
        of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `3*size*min(rows, cols) + 17*size*min(rank, rows, cols)
        + 200*min(rank, rows, cols)*min(rows, cols) + 40*size` a leaf, and those of `inner`.
    Paper: Rajabi and others, "Randomized Gradient Subspaces for Efficient Large Language Model
        Training", arXiv:2510.01878, GrassWalk.
    Departure: the moments are rotated in bias-corrected form, hence $w$. The paper's second line,
        read literally, does not keep the old moments, and applies a factor $1 - b_2^{t-1}$ that
        they contain already. The residual is scaled as in Fira's code. The first basis is that of
        `project_by_svd`; the length of a step is our choice.
    Limits: after its start a walk does not depend on the gradient, so `rank` must be high enough
        for any subspace to do. An update cannot be differentiated through its factorizations.

    >>> tx = gk.project_by_grass_walk(optax.identity(), rank=1, scale=1.0)
    >>> g = jnp.array([[3.0, 1.0], [0.0, 2.0]])  # with the residual it is all of g
    >>> bool(jnp.allclose(tx.update(g, tx.init(g))[0], g, atol=1e-5))
    True
    """
    return subspace.project(
        inner,
        rank,
        basis=subspace.grassmann_walk(angle),
        schedule=subspace.every_n(every),
        residual=subspace.fira_residual(scale, growth=growth, eps=eps, floor=floor),
        realign=subspace.rotate_moments(b1, b2=b2),
        key=key,
        batch_axes=batch_axes,
    )
