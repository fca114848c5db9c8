"""APG, adaptive projected guidance, with the parameters as its reference."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class ParallelSplitState(NamedTuple):
    """State of `normalize_by_parallel_split`."""

    mu: Updates  # alternating sum of gradients, like the parameters


@factory
def normalize_by_parallel_split(
    decay: Hyper = 0.75, *, max_norm: Hyper = 2.5, parallel: Hyper = 0.0
) -> Transform:
    r"""Apply a reverse momentum, limit each leaf's norm, and shrink its part along the weight.

    $$m_t = g_t - \mathrm{decay} \, m_{t-1}, \qquad
      d_t = m_t \min(1, \mathrm{max\_norm} / \lVert m_t \rVert)$$
    $$d^\parallel_t = \frac{\langle d_t, w \rangle}{\langle w, w \rangle} w, \qquad
      u_t = d_t - d^\parallel_t + \mathrm{parallel} \, d^\parallel_t$$

    Args:
        decay: fraction of the last sum that is subtracted: a momentum of `-decay`.
        max_norm: the largest norm of a leaf that passes, in units of the gradient.
        parallel: fraction of the part along the parameter that is kept.

    Needs: params.
    State: `4*size` bytes a leaf, `0` once.
    Flops: at most `32*size + 40` a leaf.
    Paper: Sadat, Hilliges and Weber, "Eliminating Oversaturation and Artifacts of High
        Guidance Scales in Diffusion Models", arXiv:2410.02416.
    Departure: the paper's `g` is the difference of a diffusion model's two predictions for an
        image and `w` the conditional one; here they are the gradient and the parameter of a leaf.
        The default of `max_norm` is in the paper's units of images: set your own. The guider of
        diffusers has other defaults: `parallel` 1, `max_norm` 15 and no momentum.
    Limits: the update of a leaf with one entry is `parallel` times $d_t$, as nothing is
        orthogonal to it. A steady gradient is shrunk by `1 + decay`. A zero parameter has no
        parallel part.

    >>> tx = gk.normalize_by_parallel_split(max_norm=5.0)
    >>> w = jnp.array([1.0, 0.0])
    >>> print(tx.update(jnp.array([6.0, 8.0]), tx.init(w), w)[0].round(3))  # clipped: [3 4]
    [0. 4.]
    """
    name = "normalize_by_parallel_split"
    check.interval(name, "[0, 1)", decay=decay)
    check.nonnegative(name, max_norm=max_norm, parallel=parallel)

    def init(params: Params) -> ParallelSplitState:
        return ParallelSplitState(tree.zeros(params))

    def update(
        updates: Updates,
        state: ParallelSplitState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, ParallelSplitState]:
        del extra
        check.given(name, params)

        def subtract(g: jax.Array, m: jax.Array) -> jax.Array:
            return (g.astype(m.dtype) - decay * m).astype(m.dtype)

        def split(m: jax.Array, w: jax.Array) -> jax.Array:
            axes = tuple(range(m.ndim))
            norm = norms.along(m, axes)
            d = norms.clip_factor(norm, max_norm).astype(m.dtype) * m
            size = norms.along(w.astype(m.dtype), axes)
            w = w.astype(m.dtype) / jnp.where(size > 0, size, 1)
            along = jnp.sum(d * w) * w
            return (d - along + parallel * along).astype(m.dtype)

        mu = jax.tree.map(subtract, numbers.read(updates), state.mu)
        u = jax.tree.map(split, mu, params)
        return numbers.like(u, updates), ParallelSplitState(mu)

    return transform(init, update)
