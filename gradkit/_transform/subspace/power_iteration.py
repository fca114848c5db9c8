"""Projection by subspace iteration, PowerSGD's: GaLore without an eigendecomposition."""

from gradkit import subspace
from gradkit._core import random
from gradkit._core.factory import factory
from gradkit._core.matrix import layout
from gradkit._core.types import AnyTransform, Hyper, Transform


@factory
def project_by_power_iteration(
    inner: AnyTransform,
    *,
    rank: int = 128,
    every: int = 200,
    scale: Hyper = 0.25,
    key: random.Key = 0,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Project each matrix onto a basis that is one step of subspace iteration from the last.

    $$P_t = \mathrm{orth}(g_t g_t^T P_{t-1}) \text{ if every divides } t - 1,
      \text{ else } P_{t-1}$$
    $$u_t = \mathrm{scale} \; P_t \, \mathrm{inner}(P_t^T g_t)$$

    for a $g$ with no more rows than columns; a tall one is projected along its columns. $P_0$ is
    random.

    Args:
        inner: any transform; is given a tree like the parameters, of the projections.
        every: update interval of the projector: updates between two steps of the iteration.
        scale: factor on what `inner` returns.
        rank, key, batch_axes: see the glossary.

    Needs: what `inner` needs, but `inner` gets no params: decay weights outside.
    State: `4*min(rank, rows, cols)*min(rows, cols)` bytes a leaf, `12` once, and the state
        of `inner` on leaves of `min(rank, rows, cols)*max(rows, cols)` entries.
    Flops: at most `14*size*min(rank, rows, cols) + 17*size` a leaf, and those of `inner`.
    Paper: none. Subspace iteration as in Vogels, Karimireddy and Jaggi, "PowerSGD: Practical
        Low-Rank Gradient Compression for Distributed Optimization", arXiv:1905.13727,
        Algorithm 1, without its error feedback.
    Departure: a matrix with a gradient of zeros keeps its basis.
    Limits: the first bases are near random; they converge to the singular vectors of a steady
        gradient, the faster the faster its singular values fall. Columns keep their order and
        sign while the gradient is steady, so that the moments of `inner` keep their meaning. An
        update cannot be differentiated through its factorizations.

    >>> tx = gk.project_by_power_iteration(optax.identity(), rank=1, scale=1.0)
    >>> g = jnp.outer(jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0, 0.0]))
    >>> bool(jnp.allclose(tx.update(g, tx.init(g))[0], g, atol=1e-5))  # rank 1 already
    True
    """
    return subspace.project(
        inner,
        rank,
        basis=subspace.subspace_iteration(),
        schedule=subspace.every_n(every),
        residual=subspace.discard_residual(scale),
        key=key,
        batch_axes=batch_axes,
    )
