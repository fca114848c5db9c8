"""MARS: a gradient corrected by its change since the last update."""

from typing import NamedTuple

import jax

from gradkit._core import check, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class MARSState(NamedTuple):
    """State of `average_by_mars`."""

    previous: Updates  # the gradient before this one, like the parameters


@factory
def average_by_mars(gamma: Hyper = 0.025, *, b1: Hyper = 0.95) -> Transform:
    r"""Add to each gradient a fraction of its change, so that an EMA of them lags less.

    $$u_t = g_t + \gamma \frac{b_1}{1 - b_1} (g_t - g_{t-1}), \qquad g_0 = 0$$

    Args:
        gamma: strength of the correction; 1 is that of variance reduction, 0 is none.
        b1: decay of the EMA that follows, such as Adam's.

    State: `4*size` bytes a leaf, `0` once.
    Flops: at most `9*size` a leaf.
    Paper: Yuan, Liu, Wu, Zhou and Gu, "MARS: Unleashing the Power of Variance Reduction for
        Training Large Models", arXiv:2411.10438, the approximate algorithm's `c_t`.
    Departure: as in the authors' code, the gradient before the first counts as zero; in the paper
        the first difference is zero. The paper then clips to norm one, as
        `clip_by_component_norm` does.
    Limits: the change is between different batches, whose noise it contains; the exact
        algorithm takes both gradients on one batch.

    >>> tx = gk.average_by_mars(gamma=1.0, b1=0.5)  # twice the gradient, less the last one
    >>> _, state = tx.update(jnp.float32(3.0), tx.init(jnp.float32(0.0)))
    >>> print(tx.update(jnp.float32(5.0), state)[0])
    7.0
    """
    check.nonnegative("average_by_mars", gamma=gamma)
    check.interval("average_by_mars", "[0, 1)", b1=b1)

    def init(params: Params) -> MARSState:
        return MARSState(tree.zeros(params))

    def update(
        updates: Updates, state: MARSState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, MARSState]:
        del params, extra
        g = numbers.like(numbers.read(updates), state.previous)
        weight = gamma * b1 / (1 - b1)

        def correct(g: jax.Array, before: jax.Array) -> jax.Array:
            return (g + weight * (g - before)).astype(g.dtype)

        u = jax.tree.map(correct, g, state.previous)
        return numbers.like(u, updates), MARSState(tree.after(g, u))

    return transform(init, update)
