"""GrassJump: projection onto random subspaces, with moments rotated from each to the next."""

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
    r"""Project each matrix onto a random subspace, renewed at intervals, and add the residual.

    $$P_t = \mathrm{orth}(Z), \quad Z_{ij} \sim N(0, 1) \text{ if every divides } t - 1,
      \text{ else } P_{t-1}$$

    All else is as in `project_by_grass_walk`: how the moments $m$ and $v$, the fields `mu` and
    `nu` of whatever `inner` keeps, are rotated into the new basis, and how the residual $s$ is
    scaled.

    Args:
        inner: any transform; is given a tree like the parameters, of the projections.
        every: updates between two jumps.
        scale: factor on what `inner` returns, and the fraction of $P r$ that is taken from $g$.
        eps: added to the norms of the columns of $r$ and to the last norm of $s$.
        b1: decay of the EMA `mu` that `inner` keeps.
        b2: decay of the EMA of squares `nu` that `inner` keeps.
        rank, growth, floor, key, batch_axes: see the glossary.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols)*min(rows, cols) + 4` bytes a leaf, `12` once, and the state
        of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `17*size*min(rank, rows, cols) + 200*min(rank, rows, cols)*min(rows, cols)
        + 40*size` a leaf, and those of `inner`.
    Paper: Rajabi and others, "Randomized Gradient Subspaces for Efficient Large Language Model
        Training", arXiv:2510.01878, GrassJump.
    Departure: as in `project_by_grass_walk`, moments are rotated in bias-corrected form, and the
        residual is scaled as in Fira's code.
    Limits: two random subspaces have little in common: moments lose all but about `rank / m` of
        their squared norm at a jump.

    >>> tx = gk.project_by_grass_jump(optax.identity(), rank=1, scale=1.0)
    >>> g = jnp.array([[3.0, 1.0], [0.0, 2.0]])  # with the residual it is all of g
    >>> bool(jnp.allclose(tx.update(g, tx.init(g))[0], g, atol=1e-5))
    True
    """
    return subspace.project(
        inner,
        rank,
        basis=subspace.grassmann_jump(),
        schedule=subspace.every_n(every),
        residual=subspace.fira_residual(scale, growth=growth, eps=eps, floor=floor),
        realign=subspace.rotate_moments(b1, b2=b2),
        key=key,
        batch_axes=batch_axes,
    )
