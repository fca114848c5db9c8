"""LARS's and LAMB's trust ratio: directions as long as the weights they move."""

import math

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.mask import Mask, decayed
from gradkit._core.norms import of_leaves
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, stateless


@factory
def normalize_by_trust_ratio(
    weight_decay: Hyper = 0.0,
    *,
    min_norm: Hyper = 0.0,
    max_norm: Hyper = math.inf,
    mask: Mask = None,
) -> Transform:
    r"""Give each leaf's direction, weight decay added, the norm of the leaf's parameters.

    $$u_i = \frac{\phi(\lVert p_i \rVert)}
      {\lVert d_i \rVert + \mathrm{weight\_decay} \lVert p_i \rVert}
      \, (d_i + \mathrm{weight\_decay} \, p_i), \qquad
      \phi(x) = \min(\max(x, \mathrm{min\_norm}), \mathrm{max\_norm})$$

    Where either norm is zero, the ratio is 1.

    Args:
        weight_decay: fraction of its parameter that is added to a direction. Its norm is a
            separate term of the denominator, as in LARS; for LAMB, add the decay before this
            transform.
        min_norm: the least norm that parameters count as, in their units.
        max_norm: the largest norm that they count as.
        mask: see the glossary.

    Needs: params. Stands before `step_by_learning_rate`.
    State: `0` bytes a leaf, `0` once.
    Flops: at most `26*size + 100` a leaf, `100` once.
    Paper: You et al., "Large Batch Optimization for Deep Learning: Training BERT in 76
        minutes", arXiv:1904.00962, Algorithm 2; with weight decay as in You, Gitman and
        Ginsburg, "Large Batch Training of Convolutional Networks", arXiv:1708.03888.
    Departure: the ratio of 1 at zero norms is that of published implementations; the papers name
        none.
    Limits: parameters that begin at zero, such as biases, first move as they are, then
        stay about as small: keep them apart with `gradkit.route`, or set `min_norm`.

    >>> tx = gk.normalize_by_trust_ratio()
    >>> p, d = jnp.array([3.0, 4.0]), jnp.array([-100.0, 0.0])
    >>> tx.update(d, tx.init(p), p)[0].round(3).tolist()
    [-5.0, 0.0]
    """
    check.nonnegative("normalize_by_trust_ratio", weight_decay=weight_decay)
    check.nonnegative("normalize_by_trust_ratio", min_norm=min_norm, max_norm=max_norm)

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del extra
        check.given("normalize_by_trust_ratio", params)
        norms = of_leaves(updates)
        weights = of_leaves(params).astype(norms.dtype)
        target = jnp.clip(weights, min_norm, max_norm).astype(norms.dtype)
        shrinking = decayed("normalize_by_trust_ratio", mask, params)
        added = weights if mask is None else of_leaves(shrinking).astype(norms.dtype)
        length = (norms + weight_decay * added).astype(norms.dtype)
        trusted = (target > 0) & (length > 0)

        def with_decay(d: jax.Array, p: jax.Array) -> jax.Array:
            return (d + weight_decay * p.astype(d.dtype)).astype(d.dtype)

        r = jax.tree.map(with_decay, numbers.read(updates), shrinking)
        unit = tree.scale_each(jnp.where(trusted, 1 / numbers.divisible(length), 1), r)
        u = tree.scale_each(jnp.where(trusted, target, 1), unit)
        return numbers.like(u, updates)

    return stateless(update)
