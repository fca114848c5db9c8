"""Regression with a small network, where some gradients are a thousand times too large."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradkit._lab.claims.run import descend

INPUTS, WIDTH, BATCH = 16, 32, 32
SPIKE = 1000.0


def quantized(x: jax.Array, bits: int) -> jax.Array:
    """`x` rounded to `2**bits - 1` evenly spaced levels, with a straight-through gradient."""
    step = jnp.max(jnp.abs(x)) / (2 ** (bits - 1) - 1)
    step = jnp.where(step > 0, step, 1)
    return x + jax.lax.stop_gradient(step * jnp.round(x / step) - x)


def regress(
    tx: optax.GradientTransformation,
    seed: Any,
    sizes: jax.Array,
    bits: int | None = None,
) -> jax.Array:
    """Held-out loss after every update; gradient `t` is multiplied by `sizes[t]`.

    With `bits`, inputs, weights and hidden units are quantized.
    """
    *keys, held_out, batches = jax.random.split(jax.random.key(seed), 6)
    shapes = [(INPUTS, WIDTH), (WIDTH, 1)] * 2
    ws = [jax.random.normal(k, s) / s[0] ** 0.5 for k, s in zip(keys, shapes)]
    truth, start = ws[:2], ws[2:]
    examples = jax.random.normal(held_out, (256, INPUTS))
    stored = (lambda x: x) if bits is None else (lambda x: quantized(x, bits))

    def loss(p: Any, x: jax.Array) -> jax.Array:
        hidden = stored(jnp.tanh(stored(x) @ stored(p[0])))
        return jnp.mean(
            (hidden @ stored(p[1]) - jnp.tanh(x @ truth[0]) @ truth[1]) ** 2
        )

    def slope(p: Any, x: Any) -> Any:
        key, size = x
        g = jax.grad(loss)(p, jax.random.normal(key, (BATCH, INPUTS)))
        return [size * gi for gi in g]

    inputs = jax.random.split(batches, len(sizes)), sizes
    return descend(tx, slope, start, inputs, lambda p, u: loss(p, examples))[1]


def spiky(steps: int, at: Any) -> jax.Array:
    """A vector of ones `[steps]`, with `SPIKE` at these updates."""
    return jnp.ones(steps).at[jnp.asarray(at, jnp.int32)].set(SPIKE)
