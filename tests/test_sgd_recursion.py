"""SGD on Gaussian features against the exact second moments of its error, over many seeds.

Features have the covariance `Lambda`, here diagonal in a rotated basis, and targets are linear with
noise. A batch of m examples has the gradient `A e - n` at the error `e` of the weights, where `A`
is the covariance of the batch. As `E[A C A] = (1 + 1/m) Lambda C Lambda + tr(Lambda C) Lambda / m`
for Gaussian features, the expected squares of `e`, momentum `v` and average `a`, and their
products, along each eigenvector follow from themselves alone (Bordelon and Pehlevan, "Learning
Curves for SGD on Structured Features", arXiv:2106.02713, for plain SGD).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk

SEEDS, STEPS, BATCH, NOISE = 3000, 30, 3, 0.5
SPECTRUM = np.array([2.0, 1.0, 0.5, 0.25, 0.1, 0.05])
START = np.array([1.0, -1.0, 2.0, 0.5, -2.0, 3.0])  # first error, along eigenvectors
AVERAGES = {
    "polyak": lambda t: 1 / t,
    "polynomial": lambda t: 4 / (t + 3),
    "ema": lambda t: 0.1 / (1 - 0.9**t),
}
FACTORIES = {
    "polyak": lambda: gk.average_params_by_polynomial(0.0),
    "polynomial": lambda: gk.average_params_by_polynomial(3.0),
    "ema": lambda: gk.average_params_by_ema(0.9),
}
RATES = {0.0: 0.2, 0.6: 0.1}  # by momentum


def recursion(rate, momentum, weight, sampling=1.0):
    """Excess losses of the weights and of their average, after each update.

    Of `e`, `v` and the average `a` these are the means of e^2, ev, v^2, ae, av and a^2.
    """
    lam, m = SPECTRUM, BATCH / sampling
    ee, ev, vv = START**2, 0 * START, 0 * START
    ae, av, aa = 0 * START, 0 * START, 0 * START
    for t in range(1, STEPS + 1):
        square = (1 + 1 / m) * lam**2 * ee + lam / m * (lam @ ee + NOISE**2)
        vv = momentum**2 * vv + 2 * momentum * lam * ev + square
        ev = momentum * ev + lam * ee  # of the error before, and the momentum after
        ee, ev = ee - 2 * rate * ev + rate**2 * vv, ev - rate * vv
        av = momentum * av + lam * ae
        ae = ae - rate * av
        w = weight(t)
        aa = (1 - w) ** 2 * aa + 2 * w * (1 - w) * ae + w**2 * ee
        ae, av = (1 - w) * ae + w * ee, (1 - w) * av + w * ev
        yield lam @ ee, lam @ aa


@functools.lru_cache
def simulated(momentum, average):
    """Excess losses `[seeds, steps, 2]` of the weights and of their average."""
    rng = np.random.default_rng(0)
    basis = jnp.asarray(np.linalg.qr(rng.normal(size=(6, 6)))[0], jnp.float32)
    root = basis * jnp.asarray(SPECTRUM**0.5, jnp.float32)[None]
    best = {"a": jnp.ones(4), "b": -jnp.ones(2)}
    tx = gk.chain(gk.sgd(RATES[momentum], momentum=momentum), FACTORIES[average]())
    join = lambda p: jnp.concatenate([p["a"], p["b"]])
    first = join(best) + basis @ jnp.asarray(START, jnp.float32)

    def excess(p):
        return jnp.sum(jnp.square(root.T @ (join(p) - join(best))))

    def step(carry, key):
        p, state = carry
        for_x, for_noise = jax.random.split(key)
        x = jax.random.normal(for_x, (BATCH, 6)) @ root.T
        y = x @ join(best) + NOISE * jax.random.normal(for_noise, (BATCH,))
        grads = jax.grad(lambda p: jnp.mean(jnp.square(x @ join(p) - y)) / 2)(p)
        updates, state = tx.update(grads, state, p)
        p = optax.apply_updates(p, updates)
        return (p, state), jnp.stack([excess(p), excess(gk.eval_params(state, p))])

    def run(key):
        p = {"a": first[:4], "b": first[4:]}
        keys = jax.random.split(key, STEPS)
        return jax.lax.scan(step, (p, tx.init(p)), keys)[1]

    return np.asarray(
        jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), SEEDS))
    )


def deviations(momentum, average, **changed):
    """How far the mean over seeds is from the recursion, in standard errors, `[steps, 2]`."""
    losses = simulated(momentum, average).astype(np.float64)
    want = [*recursion(RATES[momentum], momentum, AVERAGES[average], **changed)]
    error = np.std(losses, axis=0, ddof=1) / SEEDS**0.5
    return (losses.mean(axis=0) - want) / error


@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("momentum", RATES)
def test_mean_losses_are_those_of_the_recursion(momentum, average):
    assert np.max(np.abs(deviations(momentum, average))) < 3


@pytest.mark.parametrize("momentum", RATES)
def test_other_recursions_are_told_apart(momentum):
    """One batch larger by a tenth, or an average that begins one update later."""
    assert np.max(np.abs(deviations(momentum, "polyak", sampling=1 / 1.1))) > 6
    late = lambda t: 1 / max(t - 1, 1)
    want = [*recursion(RATES[momentum], momentum, late)]
    losses = simulated(momentum, "polyak")[:, :, 1]
    error = np.std(losses, axis=0, ddof=1) / SEEDS**0.5
    assert np.max(np.abs(losses.mean(axis=0) - np.array(want)[:, 1]) / error) > 6
