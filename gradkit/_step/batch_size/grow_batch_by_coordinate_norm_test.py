"""The coordinate-wise norm test: whether a batch is large enough for each entry of its gradient."""

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
def grow_batch_by_coordinate_norm_test(
    eta: Scalar = 0.1, *, max_batch_size: int = 65536, part_size: int = 1
) -> Grow:
    r"""Choose the next batch size so that each entry's error is a fraction of its size.

    $$B' = \min\left(\mathrm{max\_batch\_size}, \max\left(B, \mathrm{ceil}\left( \max_j
      \frac{m \, \mathrm{Var}_i(g_{ij})}{\mathrm{eta}^2 \bar g_j^2}
      \right)\right)\right), \quad B = m n, \quad m = \mathrm{part\_size}$$

    It returns a function of the gradients $g_1, \dots, g_n$ of $n$ parts of the batch, stacked
    along the first axis of every leaf, as those of `grow_batch_by_norm_test`. Their mean is
    $\bar g$, and the variance is the unbiased one, over parts. Methods that scale every entry by
    its own size, as AdaGrad and Adam do, need this test, which passes only where that of the whole
    norm does.

    Args:
        eta: the largest error of an entry of the gradient, as a fraction of it.
        max_batch_size: where growth ends.
        part_size: examples in a part: 1, or those of a microbatch.

    Paper: Lau, Liu and Kolar, "AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient
        Methods", arXiv:2402.11215, the coordinate-wise test.
    Departure: the authors' code has the test of the whole norm alone. Parts have 1 / m of the
        variance of examples.
    Limits: one entry decides. A network has entries whose gradient is near zero, and then it asks
        for the largest batch: give it the leaves, or sums over them, that matter. Parts must be of
        one size. Entries that are not finite count as zero. A size that changes is compiled anew:
        round it, say to a power of two. A batch above `max_batch_size` stays as it is. A size that
        is one part in 1e5 above a whole number counts as that.

    >>> grow = gk.grow_batch_by_coordinate_norm_test(0.5)
    >>> print(grow({"w": jnp.array([[0.0, 50.0], [2.0, 50.0]])}))  # the norm test: 2
    8
    """
    name = "grow_batch_by_coordinate_norm_test"
    check.positive(name, eta=eta)
    check.count(name, max_batch_size=max_batch_size, part_size=part_size)
    check.below(name, "2**31", 2**31, max_batch_size=max_batch_size)

    def grow(gradients: Updates) -> jax.Array:
        gs, count = parts.stacked(name, gradients)
        wanted = jnp.max(jnp.stack([_largest(g, eta, part_size) for g in gs]))
        wanted = jnp.minimum(wanted, max_batch_size)  # which infinity is not
        wanted = wanted * (1 - 1e-5)  # rounding must not add an example to a whole one
        return parts.next_size(wanted, count * part_size, max_batch_size)

    return grow


def _largest(g: jax.Array, eta: Scalar, part_size: int) -> jax.Array:
    """The largest batch size that an entry of a leaf asks for; infinite where its mean is zero."""
    g = g * numbers.inverse(jnp.max(jnp.abs(g), axis=0, keepdims=True))
    mean, variance = jnp.mean(g, axis=0), jnp.var(g, axis=0, ddof=1)
    asked = jnp.where(mean == 0, 1, mean)
    asked = part_size * variance / (eta * asked) ** 2
    asked = jnp.where((mean == 0) & (variance > 0), jnp.inf, asked)
    return jnp.max(asked, initial=0).astype(jnp.float32)
