"""Gradients with noise of infinite variance: errors of estimates, and losses of descent."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradkit._lab.claims.run import descend

SIZE = 10
TAIL = 1.2  # moments of this order and above are infinite: a mean, but no variance


def symmetric(key: jax.Array) -> jax.Array:
    """Samples of a symmetric stable law, by the formula of Chambers, Mallows and Stuck."""
    angle, size = jax.random.split(key)
    angle = jax.random.uniform(angle, (SIZE,), minval=-jnp.pi / 2, maxval=jnp.pi / 2)
    size = jnp.cos((1 - TAIL) * angle) / jax.random.exponential(size, (SIZE,))
    bent = jnp.sin(TAIL * angle) / jnp.cos(angle) ** (1 / TAIL)
    return bent * size ** ((1 - TAIL) / TAIL)


def skewed(key: jax.Array) -> jax.Array:
    """Samples of a Pareto distribution shifted to mean 0; its median is far below."""
    return 0.3 * (jax.random.pareto(key, TAIL, (SIZE,)) - TAIL / (TAIL - 1))


def estimate(
    tx: optax.GradientTransformation, seed: Any, steps: int, length: float
) -> Any:
    """The mean distance of directions from a constant gradient, relative to its length.

    The mean is over the second half of the updates.
    """
    start, *keys = jax.random.split(jax.random.key(seed), 2)
    steady = jax.random.normal(start, (SIZE,))
    steady *= length / jnp.linalg.norm(steady)
    _, errors = descend(
        tx,
        lambda p, key: steady + symmetric(key),
        jnp.zeros(SIZE),
        jax.random.split(keys[0], steps),
        lambda p, u: jnp.linalg.norm(u - steady) / length,
    )
    return jnp.mean(errors[steps // 2 :])


def minimize(
    tx: optax.GradientTransformation, seed: Any, steps: int, noise: Any = symmetric
) -> Any:
    """Mean loss over the last tenth of the updates on a quadratic of condition number 10."""
    curvature = jnp.geomspace(0.1, 1, SIZE)
    _, losses = descend(
        tx,
        lambda p, key: curvature * p + noise(key),
        jnp.full(SIZE, 3.0),
        jax.random.split(jax.random.key(seed), steps),
        lambda p, u: jnp.sum(curvature * p**2) / 2,
    )
    return jnp.mean(losses[-steps // 10 :])
