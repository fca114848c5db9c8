"""GrassWalk: Adam in a subspace that wanders, with averages that wander along."""

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
    r"""Let `inner` act in a subspace that wanders at random, and the rest follow.

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

    for a $g$ with no more rows than columns, else on the other side; $m$ and $v$ are the
    fields `mu` and `nu` of whatever `inner` keeps. $s$ grows by at most `growth` in one
    update, as in `project_by_fira`.

    Args:
        inner: any transform; sees a tree like the parameters, the leaves with their small side
            cut to `rank`.
        rank: directions in which `inner` acts, at most the small side.
        every: updates between two walks.
        scale: times what `inner` returns, and the part of the gradient that $s$ leaves out.
        angle: length of a step, in radians: about that of the largest angle between the
            old subspace and the new.
        growth: how much longer $s$ may get in one update, as a factor.
        eps: added to the norms of the columns of $r$ and of the last $s$.
        floor: the root mean square up to which $s$ may always grow, in units of what `inner`
            returns.
        b1: decay of the averages `mu` that `inner` keeps.
        b2: decay of the average squares `nu` that `inner` keeps.
        key: a seed or a `jax.random` key; the same key gives the same run.
        batch_axes: axes that number matrices, such as `(0,)` for scanned layers. Of the
            others the last is the columns, and the rest are the rows.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols)*min(rows, cols) + 4` bytes a leaf, `12` once, and the state
        of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `3*size*min(rows, cols) + 17*size*min(rank, rows, cols)
        + 200*min(rank, rows, cols)*min(rows, cols) + 40*size` a leaf, and those of `inner`.
    Paper: Rajabi and others, "Randomized Gradient Subspaces for Efficient Large Language Model
        Training", arXiv:2510.01878, GrassWalk.
    Departure: the averages are turned debiased, with $w$ for what they still lack; the paper's
        second line reads as if they were not kept, and its factor $1 - b_2^{t-1}$ is theirs
        already. What is left out is recovered as in Fira's release. The first basis is
        `project_by_svd`'s; the length of a step is a choice of ours.
    Limits: after its start a walk does not look at the gradient, so `rank` must be high enough for
        any subspace to do. An update cannot be differentiated through its factorizations.

    >>> tx = gk.project_by_grass_walk(optax.identity(), rank=1, scale=1.0)
    >>> g = jnp.array([[3.0, 1.0], [0.0, 2.0]])  # what is left out of one scale is recovered
    >>> bool(jnp.allclose(tx.update(g, tx.init(g))[0], g, atol=1e-5))
    True
    """
    return subspace.project(
        inner,
        rank,
        subspace.grassmann_walk(angle),
        subspace.every_n(every),
        subspace.fira_residual(scale, growth=growth, eps=eps, floor=floor),
        subspace.rotate_moments(b1, b2=b2),
        key=key,
        batch_axes=batch_axes,
    )
