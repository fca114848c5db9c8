"""Gradient-mask tuning: only the largest entries of each gradient."""

import jax
import jax.numpy as jnp

from gradkit._core import check, largest, numbers
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, stateless


@factory
def mask_by_gradient_magnitude(density: Hyper = 0.8) -> Transform:
    r"""Keep the largest entries of the gradient of each leaf, and set all others to zero.

    $$u_i = g_i \, [\, |g_i| \ge T \,], \qquad
      T = \text{the } k\text{-th largest } |g|, \quad k = \mathrm{density} \cdot \mathrm{size}$$

    Args:
        density: fraction of the entries of each leaf that is kept, rounded to at least one.

    Needs: nothing.
    State: `0` bytes a leaf, `0` once.
    Flops: at most `14*size + 40` a leaf, `400` once.
    Paper: Li and others, "Gradient-Mask Tuning Elevates the Upper Limits of LLM
        Performance", arXiv:2406.15330.
    Departure: the paper's sum over several batches before the mask is `optax.MultiSteps`
        around the chain.
    Limits: entries that tie with the smallest kept one are kept too. Momentum and decay that
        come after the mask move entries that it left out.

    >>> tx = gk.mask_by_gradient_magnitude(0.5)
    >>> u, _ = tx.update(jnp.array([1.0, -4.0, 3.0, 2.0]), tx.init(None))
    >>> u.tolist()
    [0.0, -4.0, 3.0, 0.0]
    """
    check.interval("mask_by_gradient_magnitude", "(0, 1]", density=density)

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del params, extra
        g = numbers.read(updates)
        k = largest.count(density, [x.size for x in jax.tree.leaves(g)])
        u = jax.tree.map(lambda m, x: jnp.where(m, x, 0), largest.top(g, k), g)
        return numbers.like(u, updates)

    return stateless(update)
