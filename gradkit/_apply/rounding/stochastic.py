"""Stochastic rounding: parameters of few bits that are exact on average."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, random
from gradkit._core.codec import floats
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Params, Transform, Updates, rounding


class StochasticState(NamedTuple):
    """State of `round_by_stochastic`: a random key."""

    key: jax.Array  # data of the key to draw from next, uint32 [2]


@factory
def round_by_stochastic(*, key: random.Key = 0) -> Transform:
    r"""Round each updated parameter up or down at random, such that its mean is kept.

    $$x = p + \Delta, \qquad u = q - p, \qquad q = \begin{cases}
      s \lfloor x / s \rfloor + s & \text{with probability } x / s - \lfloor x / s \rfloor \\
      s \lfloor x / s \rfloor & \text{else} \end{cases}$$

    where $s$ is how far apart numbers of the parameter's dtype are around $x$. So
    $\mathbb{E}\, q = x$: an update of a hundredth of `s` moves one parameter in a hundred.

    Args:
        key: see the glossary.

    Needs: params. Stands last in a chain, `gradkit.chain` or `optax.chain`. The update is in
        float32, so that `optax.apply_updates` lands on `q`.
    State: `0` bytes a leaf, `8` once.
    Flops: at most `60*size` a leaf, `200` once.
    Paper: Zamirai, Zhang, Aberger and De Sa, "Revisiting BFloat16 Training", arXiv:2010.06192,
        its stochastic rounding.
    Departure: the update itself is computed and added in float32.
    Limits: for bfloat16 and float16; leaves of float32 and wider pass as they are. Add updates by
        `optax.apply_updates`: `p + u`, as in `equinox.apply_updates`, makes parameters float32,
        which then pass without a word. Every update adds noise of about a quarter of `s`. Overflow
        gives the largest number of the dtype, and a non-finite entry counts as zero. Under strict
        promotion of dtypes add the update to parameters cast to float32. Put
        `optax.apply_if_finite` before it, inside the chain: it needs updates in the dtype of
        gradients.

    >>> p, u = jnp.ones(10_000, jnp.bfloat16), jnp.full(10_000, 1e-3)
    >>> tx = gk.round_by_stochastic()
    >>> q = (p.astype(u.dtype) + tx.update(u, tx.init(p), p)[0]).astype(p.dtype)
    >>> print(q.max(), f"{q.astype(u.dtype).mean():.3f}")  # rounded alone no weight would move
    1.00781 1.001
    """
    check.nonnegative("round_by_stochastic", key=key)

    def init(params: Params) -> StochasticState:
        del params
        data = jax.random.key_data(random.typed(key))
        return StochasticState(jnp.array(data, copy=True))

    def update(
        updates: Updates, state: StochasticState, params: Params, **extra: Extra
    ) -> tuple[Updates, StochasticState]:
        del extra
        leaves, structure = jax.tree.flatten(numbers.read(updates))
        following, *keys = random.split(state.key, len(leaves) + 1, key)

        def land(u: jax.Array, p: jax.Array, key: jax.Array) -> jax.Array:
            if not numbers.is_narrow(p.dtype):
                return u
            start = p.astype(u.dtype)
            return floats.stochastic(key, start + u, p.dtype) - start

        u = [*map(land, leaves, jax.tree.leaves(params), keys)]
        return structure.unflatten(u), StochasticState(jax.random.key_data(following))

    return rounding("round_by_stochastic", init, update)
