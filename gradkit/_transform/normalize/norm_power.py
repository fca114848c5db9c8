"""Gradients divided by a power of their norm: between plain and normalized descent."""

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, stateless


@factory
def normalize_by_norm_power(power: Hyper = 2 / 3) -> Transform:
    r"""Divide the gradient, as one vector, by a power of its norm.

    $$u = g / \lVert g \rVert^{\mathrm{power}}$$

    Args:
        power: 1 gives every gradient unit norm; near 0 the gradient stays as it is.

    Needs: nothing; `global_norm`, where given and finite, stands for the norm of the
        gradient, so that groups under `optax.partition` can share one.
    State: `0` bytes a leaf, `0` once.
    Flops: at most `15*size + 20` a leaf, `40` once.
    Paper: Chen, Zhou, Liang and Lu, "Generalized-Smooth Nonconvex Optimization is As
        Efficient As Smooth Nonconvex Optimization", arXiv:2303.02854, its beta-normalized
        gradient descent.
    Departure: the paper takes `power` from the exponent of the loss's smoothness up to 1; the
        value here is a choice of ours. A zero gradient stays zero.
    Limits: the learning rate is in other units than that of plain descent, and noise near a
        minimum is enlarged: lower it to stop.

    >>> tx = gk.normalize_by_norm_power(0.5)  # a gradient 100 times as long: 10 times
    >>> g = jnp.array([3.0, 4.0])
    >>> print(jnp.stack([tx.update(k * g, ())[0][1] / 4**0.5 for k in (1.25, 125)]).round(3))
    [ 1. 10.]
    """
    check.interval("normalize_by_norm_power", "(0, 1]", power=power)

    def update(
        updates: Updates,
        params: Params = None,
        *,
        global_norm: jax.Array | None = None,
        **extra: Extra,
    ) -> Updates:
        del params, extra
        norm = norms.given_or(norms.of_tree(updates), global_norm)
        unit = tree.scale(numbers.inverse(norm), numbers.read(updates))
        length = jnp.where(norm > 0, norm, 1) ** (
            1 - power
        )  # norm 0: any finite number will do, as `unit` is 0
        return numbers.like(tree.scale(length, unit), updates)

    return stateless(update)
