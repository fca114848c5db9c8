"""AutoSparse: weights below a threshold learn less and less."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class AnnealingState(NamedTuple):
    """State of `mask_by_annealing`."""

    count: jax.Array  # updates so far, int32 []


@factory
def mask_by_annealing(
    threshold: Hyper = 6.7e-3, *, alpha: Hyper = 0.75, steps: Hyper = 100_000
) -> Transform:
    r"""Shrink the gradient of weights below a threshold, in the end to zero.

    $$u_i = g_i \cdot \begin{cases} 1 & |p_i| > \mathrm{threshold} \\ \alpha_t & \text{else}
      \end{cases}, \qquad \alpha_t = \alpha \max\!\left(\tfrac{1}{2}(1 + \cos \pi x),\
      \sigma(6 - 12 x)\right), \quad x = t / \mathrm{steps}$$

    with $t$ counted from zero, and $\alpha_t = 0$ from `steps` on.

    Args:
        threshold: the size up to which weights count as pruned, in their units.
        alpha: the first factor on the gradient of a pruned weight.
        steps: the update from which that factor is zero.

    Needs: params: the weights before the threshold is subtracted.
    State: `0` bytes a leaf, `4` once.
    Flops: at most `8*size` a leaf, `30` once.
    Paper: Kundu and others, "AUTOSPARSE: Towards Automated Sparse Training of Deep Neural
        Networks", arXiv:2304.06941, with sigmoid-cosine decay.
    Departure: this is the paper's backward pass alone. Its forward pass also subtracts the
        threshold from the sizes of the weights, with a derivative of 1: do that in the model. The
        paper's threshold is the sigmoid of a trained number for each layer; here it is one
        number, which `optax.inject_hyperparams` can set. The paper sets `alpha` to zero a tenth
        of the run before its end: choose `steps` so.
    Limits: momentum after the mask goes on moving pruned weights for a while.

    >>> tx = gk.mask_by_annealing(threshold=1.0, alpha=0.5)
    >>> p = jnp.array([2.0, 0.3])
    >>> print(tx.update(jnp.array([1.0, 1.0]), tx.init(p), p)[0].round(2))
    [1.  0.5]
    """
    check.nonnegative("mask_by_annealing", threshold=threshold, alpha=alpha)
    check.positive("mask_by_annealing", steps=steps)

    def init(params: Params) -> AnnealingState:
        del params
        return AnnealingState(jnp.zeros([], jnp.int32))

    def update(
        updates: Updates, state: AnnealingState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, AnnealingState]:
        del extra
        check.given("mask_by_annealing", params)
        x = state.count.astype(jnp.result_type(float)) / steps
        factor = jnp.maximum((1 + jnp.cos(jnp.pi * x)) / 2, jax.nn.sigmoid(6 - 12 * x))
        factor = jnp.where(x < 1, alpha * factor, 0)

        def shrink(g: jax.Array, p: jax.Array) -> jax.Array:
            active = jnp.abs(p) > jnp.asarray(threshold, p.dtype)
            return jnp.where(active, g, factor.astype(g.dtype) * g)

        u = jax.tree.map(shrink, numbers.read(updates), numbers.wide(params))
        return numbers.like(u, updates), AnnealingState(numbers.increment(state.count))

    return transform(init, update)
