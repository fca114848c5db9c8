"""Grokking: addition modulo a prime from a part of its table."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._lab.claims.run import descend

PRIME, WIDTH, SHARE = 23, 128, 0.6


class Learning(NamedTuple):
    """Measures of the trained network."""

    memorized: jax.Array  # training accuracy
    understood: jax.Array  # held-out accuracy
    collapsed: jax.Array  # fraction of training pairs of float32 loss exactly 0
    naive: jax.Array  # cosine between minus the gradient and the weights
    growth: jax.Array  # norm of the weights, relative to the start


def table(seed: Any) -> tuple[jax.Array, jax.Array]:
    """All pairs in random order as two one-hot vectors, and their sums."""
    a, b = jnp.divmod(jax.random.permutation(jax.random.key(seed), PRIME**2), PRIME)
    pairs = jnp.concatenate(
        [jax.nn.one_hot(a, PRIME), jax.nn.one_hot(b, PRIME)], axis=1
    )
    return pairs, (a + b) % PRIME


def learn(tx: optax.GradientTransformation, seed: Any, steps: int) -> Learning:
    """Train two hidden layers without biases on the whole training part in every step."""
    pairs, sums = table(seed)
    cut = int(SHARE * PRIME**2)
    x, y = pairs[:cut], sums[:cut]
    sizes = [2 * PRIME, WIDTH, WIDTH, PRIME]
    keys = jax.random.split(jax.random.key(seed), 3)
    start = [
        jax.random.uniform(key, (rows, cols), minval=-1, maxval=1) / rows**0.5
        for key, rows, cols in zip(keys, sizes, sizes[1:])
    ]

    def logits(ws: Any, x: jax.Array) -> jax.Array:
        return jax.nn.relu(jax.nn.relu(x @ ws[0]) @ ws[1]) @ ws[2]

    def losses(ws: Any) -> jax.Array:
        chosen = jnp.take_along_axis(logits(ws, x), y[:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(logits(ws, x), axis=1) - chosen

    slope = jax.grad(lambda ws: jnp.mean(losses(ws)))
    ws, _ = descend(tx, lambda ws, _: slope(ws), start, jnp.arange(steps))
    right = jnp.argmax(logits(ws, pairs), axis=1) == sums
    g = slope(ws)
    inner = sum(jnp.vdot(gi, wi) for gi, wi in zip(g, ws))
    lengths = optax.tree.norm(g) * optax.tree.norm(ws)
    return Learning(
        memorized=jnp.mean(right[:cut]),
        understood=jnp.mean(right[cut:]),
        collapsed=jnp.mean(losses(ws) == 0),
        naive=-inner / jnp.where(lengths > 0, lengths, 1),
        growth=optax.tree.norm(ws) / optax.tree.norm(start),
    )
