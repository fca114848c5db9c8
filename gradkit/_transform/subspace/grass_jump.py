"""GrassJump: Adam in a subspace drawn anew now and then, with averages carried over."""

from gradkit import subspace
from gradkit._core import random
from gradkit._core.factory import factory
from gradkit._core.matrix import layout
from gradkit._core.types import AnyTransform, Hyper, Transform


@factory
def project_by_grass_jump(
    inner: AnyTransform,
    *,
    rank: int = 128,
    every: int = 100,
    scale: Hyper = 0.25,
    growth: Hyper = 1.01,
    eps: Hyper = 1e-8,
    floor: Hyper = 0.0,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    key: random.Key = 0,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Let `inner` act in a random subspace, drawn anew now and then, and the rest follow.

    $$P_t = \mathrm{orth}(Z), \quad Z_{ij} \sim N(0, 1) \text{ if every divides } t - 1,
      \text{ else } P_{t-1}$$

    All else is as in `project_by_grass_walk`: how averages $m$ and $v$, the fields `mu` and
    `nu` of whatever `inner` keeps, are turned into the new basis, and how the rest $s$ of the
    gradient is recovered.

    Args:
        inner: any transform; sees a tree like the parameters, the leaves with their small side
            cut to `rank`.
        rank: directions in which `inner` acts, at most the small side.
        every: updates between two jumps.
        scale: times what `inner` returns, and the part of the gradient that $s$ leaves out.
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
    Flops: at most `17*size*min(rank, rows, cols) + 200*min(rank, rows, cols)*min(rows, cols)
        + 40*size` a leaf, and those of `inner`.
    Paper: Rajabi and others, "Randomized Gradient Subspaces for Efficient Large Language Model
        Training", arXiv:2510.01878, GrassJump.
    Departure: that of `project_by_grass_walk`, but for its first basis and its steps.
    Limits: two random subspaces share little: averages lose all but about `rank / m` of their
        square at a jump.

    >>> tx = gk.project_by_grass_jump(optax.identity(), rank=1, scale=1.0)
    >>> g = jnp.array([[3.0, 1.0], [0.0, 2.0]])  # what is left out of one scale is recovered
    >>> bool(jnp.allclose(tx.update(g, tx.init(g))[0], g, atol=1e-5))
    True
    """
    return subspace.project(
        inner,
        rank,
        subspace.grassmann_jump(),
        subspace.every_n(every),
        subspace.fira_residual(scale, growth=growth, eps=eps, floor=floor),
        subspace.rotate_moments(b1, b2=b2),
        key=key,
        batch_axes=batch_axes,
    )
