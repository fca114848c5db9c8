"""Step sizes in a run: averages, losses that are not finite, scales, and what they report."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entry import GOLDEN

import gradkit as gk

DATA = pathlib.Path(__file__).parent / "golden"
POLYAKS = {
    "momo": lambda: gk.step_by_momo(),
    "momo_adam": lambda: gk.step_by_momo_adam(),
    "polyak": lambda: gk.step_by_polyak(),
    "sania_adagrad": lambda: gk.step_by_sania_adagrad(),
    "sania_adam": lambda: gk.step_by_sania_adam(),
}


AVERAGES = {  # of a recorded run, and where the average is in the record
    "dog": (lambda tx: gk.chain(tx, gk.average_params_by_polynomial()), "averaged"),
    "schedulefree_adamw": (lambda tx: tx, "eval_params"),
}


@pytest.mark.parametrize("file", AVERAGES)
def test_averages_follow_the_release(file):
    data = np.load(DATA / f"{file}.npz")
    names = [k.removeprefix("grads/") for k in data if k.startswith("grads/")]
    at = lambda what, t: {k: jnp.asarray(data[f"{what}/{k}"][t]) for k in names}
    averaged, place = AVERAGES[file]
    with jax.enable_x64(True):
        tx, params = averaged(GOLDEN[file].make()), at("params", 0)
        state, update = tx.init(params), jax.jit(tx.update)
        for t in range(len(data[f"grads/{names[0]}"])):
            u, state = update(at("grads", t), state, params)
            params = optax.apply_updates(params, u)
            got, want = gk.eval_params(state, params), at(place, t)
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-9), got, want)


def test_layers_of_one_leaf_are_the_whole():
    """L-DoG of a tree of one leaf is DoG."""
    runs = []
    for make in (gk.step_by_dog, gk.step_by_layer_dog):
        tx, p = make(first_distance=0.1), jnp.arange(3.0)
        state = tx.init(p)
        for _ in range(4):
            u, state = tx.update(p - 1, state, p)
            p += u
        runs.append(p)
    np.testing.assert_allclose(*runs, rtol=1e-6)


@pytest.mark.parametrize("name", POLYAKS)
def test_a_loss_that_is_not_finite_moves_nothing_for_good(name):
    tx, p, g = POLYAKS[name](), jnp.ones(3), jnp.array([0.1, -0.2, 0.3])
    state = tx.init(p)
    for value in (1.0, jnp.nan, jnp.inf, 1.0):
        u, state = tx.update(g, state, p, value=jnp.float32(value))
        assert jnp.all(jnp.isfinite(u))
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state))
    if "momo" not in name:
        u, _ = tx.update(g, state, p, value=jnp.float32(jnp.nan))
        assert not jnp.any(u)


@pytest.mark.parametrize("name", POLYAKS)
def test_no_step_is_made_at_the_lower_bound(name):
    tx, p = POLYAKS[name](), jnp.ones(3)
    u, _ = tx.update(jnp.ones(3), tx.init(p), p, value=jnp.float32(0.0))
    assert not jnp.any(u)


@pytest.mark.parametrize("make", [gk.step_by_sania_adagrad, gk.step_by_sania_adam])
def test_sania_does_not_see_the_units_of_parameters(make):
    """Without `eps`; losses of a linear regression whose features have scales of 1e-3 to 1e3."""
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(20, 6)), rng.normal(size=20)

    def losses(scales):
        def loss(p):
            return jnp.mean((jnp.asarray(features * scales) @ p - targets) ** 2)

        tx, p = make(eps=0.0), jnp.zeros(6)
        state, found = tx.init(p), []
        for _ in range(10):
            value, g = jax.value_and_grad(loss)(p)
            u, state = tx.update(g, state, p, value=value)
            p += u
            found.append(value)
        return found

    with jax.enable_x64(True):
        got, want = losses(10 ** rng.uniform(-3, 3, 6)), losses(np.ones(6))
    np.testing.assert_allclose(got, want, rtol=1e-8)


def test_prodigy_finds_the_distance_to_the_solution():
    """Of a loss `|p - 3|`, from an estimate a million times too small."""
    tx, p = gk.step_by_prodigy(), jnp.zeros(4)
    state, update = tx.init(p), jax.jit(tx.update)
    for _ in range(200):
        u, state = update(jnp.sign(p - 3.0), state, p)
        p += u
    assert 0.5 < state.distance < 6.0
    assert jnp.all(jnp.abs(p - 3.0) < 1.0)


def test_learning_rates_are_reported():
    p, g = {"a": jnp.ones(2), "b": jnp.ones(3)}, {"a": jnp.ones(2), "b": jnp.ones(3)}

    def reported(tx):
        tx, value = gk.measure(tx), jnp.float32(0.25)
        return gk.metrics(tx.update(g, tx.init(p), p, value=value)[1])

    size = 0.5 * (1 + 5**0.5) / 5**0.5
    rate = reported(gk.step_by_dog(first_distance=0.5, eps=0.0))["learning_rate"]
    np.testing.assert_allclose(rate, size, rtol=1e-6)
    rates = reported(gk.step_by_layer_dog(first_distance=0.5, eps=0.0))
    np.testing.assert_allclose(
        [rates[f"step_by_layer_dog/{k}_rate"] for k in ("least", "largest")],
        [0.5 * (1 + n**0.5) / n**0.5 for n in (3, 2)],
        rtol=1e-6,
    )
    prodigy = gk.step_by_prodigy(0.5, first_distance=1e-3)
    np.testing.assert_allclose(reported(prodigy)["learning_rate"], 5e-4, rtol=1e-6)
    np.testing.assert_allclose(reported(gk.step_by_polyak())["learning_rate"], 0.05)
