"""Gravity: a velocity that steep slopes hardly move."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, random, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class GravityState(NamedTuple):
    """State of `normalize_by_gravity`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # velocity, like the parameters; before the first update in units of `start`
    key: jax.Array  # data of the key that the first velocities are from, uint32 [2]


@factory
def normalize_by_gravity(
    decay: Hyper = 0.9, *, start: Hyper = 0.1, key: random.Key = 0
) -> Transform:
    r"""Take an EMA of gradients, each entry damped by its size times the largest of its leaf.

    $$z_{t,ij} = \frac{g_{t,ij}}{1 + (g_{t,ij} \max_k |g_{t,ik}|)^2}, \qquad
      b_t = \frac{\mathrm{decay} \, (t - 1) + 1}{t + 1}$$
    $$u_t = m_t = b_t m_{t-1} + (1 - b_t) z_t, \qquad
      m_{0,ij} \sim \mathcal{N}(0, \mathrm{start}^2)$$

    Args:
        decay: of the EMA in the long run; it begins with 1/2.
        start: standard deviation of the first velocities, in units of the gradient; the
            paper's `alpha / learning_rate`.
        key: a seed or a `jax.random` key, for the first velocities; the same key gives the
            same run.

    State: `4*size` bytes a leaf, `12` once.
    Flops: at most `18*size + 20` a leaf, `10` once.
    Paper: Bahrami and Pouriyan Zadeh, "Gravity Optimizer: a Kinematic Approach on Optimization
        in Deep Learning", arXiv:2101.09192.
    Departure: updates count from 0, as in the authors' Keras code; their PyTorch code counts from
        1.
    Limits: not for large gradients: an entry `g` that is the largest of its leaf counts most at
        `|g| = 3^(-1/4)`, and as `|g|^-3` beyond. Each group under `optax.partition` draws its own
        first velocities.

    >>> tx = gk.normalize_by_gravity(start=0.0)  # the steeper entry moves less
    >>> print(tx.update(jnp.array([1.0, 2.0]), tx.init(jnp.zeros(2)))[0].round(3))
    [0.1   0.059]
    """
    check.interval("normalize_by_gravity", "[0, 1)", decay=decay)
    check.nonnegative("normalize_by_gravity", start=start, key=key)

    def init(params: Params) -> GravityState:
        zeros, structure = jax.tree.flatten(tree.zeros(params))
        keys = [jax.random.fold_in(random.typed(key), i) for i in range(len(zeros))]
        draws = [
            jax.random.normal(k, x.shape, jnp.float32) for k, x in zip(keys, zeros)
        ]
        mu = [x + draw.astype(x.dtype) for x, draw in zip(zeros, draws)]  # sharded as x
        key_data = jnp.array(jax.random.key_data(random.typed(key)), copy=True)
        return GravityState(jnp.zeros([], jnp.int32), structure.unflatten(mu), key_data)

    def update(
        updates: Updates, state: GravityState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, GravityState]:
        del params, extra

        def roll(m: jax.Array, g: jax.Array, largest: jax.Array) -> jax.Array:
            t, g = state.count.astype(m.dtype), g.astype(m.dtype)
            z = g / (1 + jnp.square(g * largest.astype(m.dtype)))
            b = (decay * t + 1) / (t + 2)
            return (b * jnp.where(t > 0, 1, start) * m + (1 - b) * z).astype(m.dtype)

        largest = jax.tree.map(norms.largest, updates)
        mu = jax.tree.map(roll, state.mu, numbers.read(updates), largest)
        return numbers.like(mu, updates), GravityState(
            numbers.increment(state.count), mu, state.key
        )

    return transform(init, update)
