"""Oracles of momenta with a norm, a key, a phase or a window of their own."""

import jax
import jax.numpy as jnp
import numpy as np
from entry import entry

import gradkit as gk

SCHEDULE = {
    "composition": "optax.inject_hyperparams takes every function for a schedule"
}


def huber(x):
    """The derivative of Huber's loss of width 1/2."""
    return jnp.clip(x / 0.5, -1, 1)


@entry(
    "average_by_lion_kappa",
    fixed={"kappa": huber},
    xfail=SCHEDULE,
    b1=0.9,
    b2=0.8,
)
def lion_kappa_direction(gs, ps, b1, b2):
    m = 0.0
    for g in gs:
        yield np.clip((b1 * m + (1 - b1) * g) / 0.5, -1, 1)
        m = b2 * m + (1 - b2) * g


@entry(
    "lion_kappa",
    fixed={"kappa": huber},
    xfail=SCHEDULE,
    learning_rate=0.1,
    b1=0.9,
    b2=0.8,
    weight_decay=0.1,
)
def lion_kappa(gs, ps, learning_rate, b1, b2, weight_decay):
    for d, p in zip(lion_kappa_direction(gs, ps, b1, b2), ps):
        yield -learning_rate * (d + weight_decay * p)


@entry("average_by_running_median")
def running_median(gs, ps):
    for t in range(len(gs)):
        window = [gs[max(t - k, 0)] for k in range(3)]
        yield np.median(window, axis=0)


@entry("average_by_random_scaling", decay=0.9, key=7)
def random_scaling(gs, ps, decay, key):
    m, key = 0.0, jax.random.key(key)
    for g in gs:
        key, now = jax.random.split(key)
        m = decay * m + (1 - decay) * g
        uniform = np.float64(jax.random.uniform(now, dtype=jnp.float32))
        yield -np.log1p(-np.float32(uniform)) * m


@entry("average_by_optimism", fixed={"inner": gk.average_by_heavy_ball(0.9)})
def optimism(gs, ps):
    m = ahead = 0.0
    for g in gs:
        m = 0.9 * m + g
        yield m + m - ahead  # the step, the new guess, the old one taken back
        ahead = m


@entry("average_by_complex", decay=0.8, angle=0.4)
def complex_momentum(gs, ps, decay, angle):
    m = 0.0
    for g in gs:
        m = decay * np.exp(1j * angle) * m + g
        yield np.real(m)
