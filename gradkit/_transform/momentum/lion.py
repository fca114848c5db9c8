"""Lion: the sign of momentum that leans on the newest gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class LionState(NamedTuple):
    """State of `average_by_lion`."""

    mu: Updates  # EMA of the gradient with decay b2, like the parameters


@factory
def average_by_lion(b1: Hyper = 0.9, *, b2: Hyper = 0.99) -> Transform:
    r"""Replace each gradient by the sign of its interpolation with the momentum.

    $$u_t = \mathrm{sign}(b_1 m_{t-1} + (1 - b_1) g_t), \qquad
      m_t = b_2 m_{t-1} + (1 - b_2) g_t$$

    Args:
        b1: weight of the momentum in the interpolation.
        b2: decay of the momentum, an EMA of the gradient.

    State: `4*size` bytes a leaf, `0` once.
    Flops: at most `15*size` a leaf.
    Paper: Chen et al., "Symbolic Discovery of Optimization Algorithms", arXiv:2302.06675,
        Algorithm 2.
    Departure: none.
    Limits: every entry moves by one, so learning rates are 3 to 10 times smaller than Adam's
        and weight decays as much larger; noise dominates in small batches.

    >>> tx = gk.average_by_lion()  # only the sign of a gradient matters
    >>> u, _ = tx.update(jnp.array([1e-20, -3e9, 0.0]), tx.init(jnp.zeros(3)))
    >>> u.tolist()
    [1.0, -1.0, 0.0]
    """
    check.interval("average_by_lion", "[0, 1)", b1=b1, b2=b2)

    def init(params: Params) -> LionState:
        return LionState(tree.zeros(params))

    def update(
        updates: Updates, state: LionState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, LionState]:
        del params, extra
        g = numbers.read(updates)
        mu = tree.ema(b2, state.mu, g)
        u = jax.tree.map(jnp.sign, tree.ema_before(b1, b2, state.mu, mu, g))
        return numbers.like(u, updates), LionState(mu)

    return transform(init, update)
