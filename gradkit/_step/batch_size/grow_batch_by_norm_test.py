"""The norm test: whether a batch is large enough for its gradient to be trusted."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, parts
from gradkit._core.factory import factory
from gradkit._core.types import Scalar, Updates

Grow = Callable[
    [Updates], jax.Array
]  # gradients of parts -> examples of the next batch


@factory
def grow_batch_by_norm_test(
    eta: Scalar = 0.1, *, max_batch_size: int = 65536, part_size: int = 1
) -> Grow:
    r"""Choose the next batch size so that the error of a gradient is a fraction of its norm.

    $$B' = \min\left(\mathrm{max\_batch\_size}, \max\left(B, \mathrm{ceil}\left(
      \frac{m \sum_j \mathrm{Var}_i(g_{ij})}{\mathrm{eta}^2 \lVert \bar g \rVert^2}
      \right)\right)\right), \quad B = m n, \quad m = \mathrm{part\_size}$$

    It returns a function of the gradients $g_1, \dots, g_n$ of $n$ parts of the batch, stacked
    along the first axis of every leaf, as `jax.vmap(jax.grad(loss), (None, 0))` has them. Their mean is
    $\bar g$, and the variance is the unbiased one, over parts.

    Args:
        eta: the largest error, in norms of the gradient.
        max_batch_size: where growth ends.
        part_size: examples in a part: 1, or those of a microbatch.

    Paper: Lau, Liu and Kolar, "AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient
        Methods", arXiv:2402.11215.
    Departure: the authors' code takes single examples. Parts have 1 / m of their variance.
    Limits: parts must be of one size. A gradient of zero asks for the largest batch, if its parts
        differ. Entries that are not finite count as zero. A size that changes is compiled anew:
        round it, say to a power of two. A batch above `max_batch_size` stays as it is. A size that
        is one part in 1e5 above a whole number counts as that.

    >>> grow = gk.grow_batch_by_norm_test(0.5)
    >>> print(grow({"w": jnp.array([0.0, 2.0])}), grow({"w": jnp.array([0.9, 1.1])}))
    8 2
    """
    name = "grow_batch_by_norm_test"
    check.positive(name, eta=eta)
    check.count(name, max_batch_size=max_batch_size, part_size=part_size)
    check.below(name, "2**31", 2**31, max_batch_size=max_batch_size)

    def grow(gradients: Updates) -> jax.Array:
        gs, count = parts.stacked(name, gradients)
        top = jnp.max(jnp.stack([jnp.max(jnp.abs(g), initial=0) for g in gs]))
        gs = [g * numbers.inverse(top) for g in gs]  # whose squares do not overflow
        variance = sum(jnp.sum(jnp.var(g, axis=0, ddof=1)) for g in gs)
        square = sum(jnp.sum(jnp.mean(g, axis=0) ** 2) for g in gs)
        wanted = part_size * variance / (eta**2 * jnp.where(square > 0, square, 1))
        wanted = jnp.where((square > 0) | (variance == 0), wanted, max_batch_size)
        wanted = wanted * (1 - 1e-5)  # rounding must not add an example to a whole one
        return parts.next_size(wanted, count * part_size, max_batch_size)

    return grow
