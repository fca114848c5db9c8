"""Block-normalized gradients: every tensor at unit norm."""

import jax
import jax.numpy as jnp

from gradkit._core import numbers
from gradkit._core.factory import factory
from gradkit._core.norms import of_leaves
from gradkit._core.types import Extra, Params, Transform, Updates, stateless


@factory
def normalize_by_block() -> Transform:
    r"""Divide the gradient of each leaf by its norm.

    $$u_i = g_i / \lVert g_i \rVert$$

    State: `0` bytes a leaf, `0` once.
    Flops: at most `14*size + 20` a leaf.
    Paper: Yu, Huang, Lin, Salakhutdinov and Carbonell, "Block-Normalized Gradient Method:
        An Empirical Study for Training Deep Neural Network", arXiv:1707.04822, Algorithm 1.
    Departure: a block is a leaf; the paper's is a layer.
    Limits: near a minimum the noise is scaled up to unit norm: lower the learning rate to
        stop. A zero gradient stays zero.

    >>> tx = gk.normalize_by_block()  # the size of the gradient does not matter
    >>> print(tx.update(jnp.array([3e-20, 4e-20]), tx.init(None))[0].round(3))
    [0.6 0.8]
    """

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del params, extra
        g = numbers.read(updates)
        norms = of_leaves(updates)
        leaves, structure = jax.tree.flatten(g)
        divisors = jnp.where(norms > 0, norms, 1)
        u = [gi / d.astype(gi.dtype) for gi, d in zip(leaves, divisors)]
        return numbers.like(structure.unflatten(u), updates)

    return stateless(update)
