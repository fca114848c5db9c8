"""Pixel-wise gradient clipping: every slice of a tensor by itself."""

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, report
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, stateless


@factory
def clip_by_slice_norm(
    max_norm: Hyper = 0.1, *, axes: tuple[int, ...] = (-1,)
) -> Transform:
    r"""Shrink each slice of the gradient along some axes to a norm of at most `max_norm`.

    $$u_s = g_s \cdot \min(1, \mathrm{max\_norm} / \lVert g_s \rVert)$$

    A slice `s` is what is left when all axes but `axes` are fixed: with `(-1,)`, the channels
    of one pixel of an image `[height, width, channels]`.

    Args:
        max_norm: the largest Euclidean norm that passes, in units of the gradient.
        axes: the axes that the norm is taken over. One that a leaf lacks is left out; without
            any, every entry is a slice.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `18*size` a leaf.
    Paper: Pan et al., "Enhancing High-Resolution 3D Generation through Pixel-wise Gradient
        Clipping", arXiv:2310.12474.
    Departure: clips the gradient of any leaf; the paper clips that of a rendered image, before
        backpropagation reaches the parameters. The authors' code bounds the largest channel, not
        the norm.
    Limits: turns the gradient as a whole towards the slices that are not clipped. A scaled
        loss scales what is clipped.

    >>> tx = gk.clip_by_slice_norm(1.0)  # no pixel pays for another
    >>> g = jnp.array([[3e9, 4e9], [0.5, 0.0]])
    >>> tx.update(g, tx.init(g))[0].round(3).tolist() == jnp.array([[0.6, 0.8], g[1]]).tolist()
    True
    """
    check.nonnegative("clip_by_slice_norm", max_norm=max_norm)

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del params, extra

        def factors(g: jax.Array) -> jax.Array:
            present = {a % g.ndim for a in axes if -g.ndim <= a < g.ndim}
            norm = norms.along(g, tuple(sorted(present)))
            bound = jnp.asarray(max_norm, g.dtype)
            return norms.clip_factor(norm, bound)

        g = numbers.read(updates)
        factor = jax.tree.map(factors, g)
        report.clipping("clip_by_slice_norm", factor)
        return numbers.like(jax.tree.map(jnp.multiply, factor, g), updates)

    return stateless(update)
