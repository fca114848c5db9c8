"""Every recipe, at its defaults, trains a small network on mini-batches of 4 and of 8 examples.

Handwritten digits through a residual network whose leaves are what users have: biases, a gain, a
readout, inputs that are always zero, and a parameter that the loss does not use.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entry import REPRESENTATIVE

import gradkit
from gradkit.catalogue import METHODS

RECIPES = [m.name for m in METHODS if m.family == "recipe"]
STEPS = 300


def init(key: jax.Array) -> Any:
    def dense(key: jax.Array, rows: int, cols: int, scale: float = 1.0) -> Any:
        kernel = jax.random.normal(key, (rows, cols), jnp.float32)
        return {"kernel": scale * kernel / rows**0.5, "bias": jnp.zeros(cols)}

    keys = jax.random.split(key, 5)
    return {
        "stem": dense(keys[0], 64, 32),
        "norm": {"scale": jnp.ones(32)},
        "attend": dense(keys[1], 32, 32),
        "up": dense(keys[2], 32, 48),
        "down": dense(keys[3], 48, 32),
        "head": dense(keys[4], 32, 10, 0.1),
        "unused": {"kernel": jnp.ones((8, 8))},
    }


def logits(p: Any, x: jax.Array) -> jax.Array:
    dense = lambda name, x: jnp.dot(x, p[name]["kernel"]) + p[name]["bias"][None]
    x = dense("stem", x)
    x = x + jnp.tanh(
        dense("attend", p["norm"]["scale"][None] * jax.nn.standardize(x, epsilon=1e-5))
    )
    x = x + dense("down", jax.nn.relu(dense("up", x)))
    return dense("head", x)


@functools.cache
def digits() -> tuple[jax.Array, jax.Array]:
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    return jnp.asarray(images / 16, jnp.float32), jnp.asarray(labels, jnp.int32)


def loss(p: Any, batch: jax.Array, weights: jax.Array) -> jax.Array:
    images, labels = digits()
    of_each = optax.losses.softmax_cross_entropy_with_integer_labels(
        logits(p, images[batch]), labels[batch]
    )
    return jnp.sum(weights * of_each) / jnp.sum(weights)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(k, marks=[pytest.mark.slow] * (k not in REPRESENTATIVE))
        for k in RECIPES
    ],
)
def test_trains(name: str) -> None:
    tx = getattr(gradkit, name)()
    batches = np.random.default_rng(0).integers(0, len(digits()[1]), (STEPS, 8))

    def step(carry: Any, batch: jax.Array, weights: jax.Array) -> Any:
        p, state = carry
        value, grads = jax.value_and_grad(loss)(p, batch, weights)
        u, state = tx.update(grads, state, p, value=value)
        rms = [jnp.sqrt(jnp.mean(jnp.square(x))) for x in jax.tree.leaves(u)]
        return (optax.apply_updates(p, u), state), (value, jnp.max(jnp.stack(rms)))

    @jax.jit
    def train(p: Any, weights: jax.Array) -> Any:
        run = functools.partial(step, weights=weights)
        everything = jnp.arange(len(digits()[1]), dtype=jnp.int32)
        (q, _), seen = jax.lax.scan(run, (p, tx.init(p)), jnp.asarray(batches))
        whole = lambda p: loss(p, everything, jnp.ones_like(everything, jnp.float32))
        return q, whole(p), whole(q), *seen

    p = init(jax.random.key(0))
    for size in (4, 8):
        used = jnp.asarray(np.arange(8) < size, jnp.float32)
        q, before, after, values, sizes = jax.device_get(train(p, used))
        assert after < 0.99 * before, f"batches of {size}: {before} -> {after}"
        assert values.max() < 2.5 * before, f"batches of {size}: up to {values.max()}"
        usual = np.median(sizes)
        assert sizes.max() < 30 * usual, f"an update of {sizes.max()}, usually {usual}"
        idle = np.abs(q["unused"]["kernel"])  # decays at most, but for first velocities
        assert np.all(idle < 1.1), f"what has no gradient moved to {idle}"
