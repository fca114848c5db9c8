"""Scale-invariant weights, which turn more slowly as their norm grows."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._lab.claims.run import descend

INPUTS, UNITS, BATCH, NOISE = 16, 8, 16, 0.1


class Turning(NamedTuple):
    """Measures after each update."""

    norm: jax.Array  # of the weights
    moved: jax.Array  # norm of the update
    error: jax.Array  # mean squared, on held-out inputs without noise


def committee(w: jax.Array, x: jax.Array) -> jax.Array:
    """The sum of ReLU units with weights of norm 1, with alternating signs."""
    units = jax.nn.relu(x @ (w / jnp.linalg.norm(w, axis=0, keepdims=True)))
    return units @ jnp.where(jnp.arange(UNITS) % 2 == 0, 1.0, -1.0)


def turn(
    tx: optax.GradientTransformation, seed: Any, steps: int, penalty: Any = 0.0
) -> Turning:
    """Learn one committee from noisy outputs of another, with a fresh batch in every step.

    `penalty` times the weights is added to the gradient.
    """
    *keys, batches = jax.random.split(jax.random.key(seed), 4)
    truth, start = (jax.random.normal(key, (INPUTS, UNITS)) for key in keys[:2])
    held_out = jax.random.normal(keys[2], (256, INPUTS))

    def loss(w: jax.Array, x: jax.Array, noise: Any) -> jax.Array:
        return jnp.mean((committee(w, x) - committee(truth, x) - noise) ** 2)

    def slope(w: jax.Array, key: jax.Array) -> jax.Array:
        x, noise = jax.random.split(key)
        x = jax.random.normal(x, (BATCH, INPUTS))
        noise = NOISE * jax.random.normal(noise, (BATCH,))
        return jax.grad(loss)(w, x, noise) + penalty * w

    def watch(w: jax.Array, u: jax.Array) -> Turning:
        return Turning(jnp.linalg.norm(w), jnp.linalg.norm(u), loss(w, held_out, 0.0))

    return descend(tx, slope, start, jax.random.split(batches, steps), watch)[1]


def end(turning: Turning) -> jax.Array:
    """The mean error over the last tenth of the updates."""
    return jnp.mean(turning.error[-len(turning.error) // 10 :])
