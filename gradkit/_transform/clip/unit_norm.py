"""AGC: clip the gradient of every output unit to a fraction of the norm of its weights."""

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, report
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, stateless


@factory
def clip_by_unit_norm(max_ratio: Hyper = 0.01, *, eps: Hyper = 1e-3) -> Transform:
    r"""Shrink the gradient of each output unit to a fraction of the norm of its weights.

    $$u_j = g_j \cdot \min\left(1, \mathrm{max\_ratio} \,
      \frac{\max(\lVert w_j \rVert, \epsilon)}{\lVert g_j \rVert}\right)$$

    A unit `j` is an index of the last axis of a kernel `[..., in, out]`; a vector or a
    scalar is one unit.

    Args:
        max_ratio: the largest norm that passes, as a fraction of the norm of the weights.
        eps: the least norm that weights count as, in units of the parameters, so that
            weights can leave zero.

    Needs: params.
    State: `0` bytes a leaf, `0` once.
    Flops: at most `32*size` a leaf.
    Paper: Brock, De, Smith and Simonyan, "High-Performance Large-Scale Image Recognition
        Without Normalization", arXiv:2102.06171, Section 4.
    Departure: the authors' code sums a kernel of three axes over its first axis alone, and takes
        a `[1, n]` kernel for one unit.
    Limits: an attention kernel `[in, heads, size]` has more output axes than the last:
        reshape it, or a unit is the same index of all heads. A stack `[layers, in, out]`
        clips its layers together: use `jax.vmap`. The paper spares the last layer.

    >>> tx = gk.clip_by_unit_norm(0.01)  # weights of norm 5 allow a gradient of norm 0.05
    >>> u, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(None), jnp.array([4.0, 3.0]))
    >>> print(u.round(3))
    [0.03 0.04]
    """
    check.nonnegative("clip_by_unit_norm", max_ratio=max_ratio, eps=eps)

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del extra
        check.given("clip_by_unit_norm", params)

        def factors(g: jax.Array, w: jax.Array) -> jax.Array:
            axes = tuple(range(g.ndim))[: max(g.ndim - 1, 1)]
            norm = norms.along(g, axes)
            weight = norms.along(w.astype(g.dtype), axes)
            bound = (max_ratio * jnp.maximum(weight, eps)).astype(g.dtype)
            return norms.clip_factor(norm, bound)

        g = numbers.read(updates)
        factor = jax.tree.map(factors, g, params)
        report.clipping("clip_by_unit_norm", factor)
        return numbers.like(jax.tree.map(jnp.multiply, factor, g), updates)

    return stateless(update)
