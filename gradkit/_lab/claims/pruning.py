"""Regression with few relevant inputs: which inputs end with all weights zero."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._lab.claims.run import descend

INPUTS, ACTIVE, OUTPUTS, BATCH = 48, 8, 8, 16


class Pruned(NamedTuple):
    """Fractions of inputs with all weights zero, and the error."""

    found: jax.Array  # fraction of irrelevant inputs whose weights are all zero
    lost: jax.Array  # fraction of relevant inputs whose weights are all zero
    error: jax.Array  # squared distance from the true weights


def prune(tx: optax.GradientTransformation, seed: Any, steps: int) -> Pruned:
    """Descend from dense weights along noisy gradients; groups are rows, `axes=(-2,)`."""
    teacher, start, batches = jax.random.split(jax.random.key(seed), 3)
    truth = jax.random.normal(teacher, (INPUTS, OUTPUTS)).at[ACTIVE:].set(0)

    def slope(w: jax.Array, key: jax.Array) -> jax.Array:
        x, noise = jax.random.split(key)
        x = jax.random.normal(x, (BATCH, INPUTS))
        return (
            x.T @ (x @ (w - truth) - jax.random.normal(noise, (BATCH, OUTPUTS))) / BATCH
        )

    w = 0.3 * jax.random.normal(start, (INPUTS, OUTPUTS))
    w, _ = descend(tx, slope, w, jax.random.split(batches, steps))
    zero = jnp.all(w == 0, axis=1)
    return Pruned(
        jnp.mean(zero[ACTIVE:]), jnp.mean(zero[:ACTIVE]), jnp.sum((w - truth) ** 2)
    )
