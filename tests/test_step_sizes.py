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


def test_u_dog_asks_for_gradients_where_the_paper_takes_them():
    """Two updates are a step; the loss of the average falls as one over its square."""
    scales = np.array([1.0, 0.3, 0.1, 0.01])
    grad, x0, first = lambda x: scales * x, np.array([1.0, -2.0, 3.0, -1.0]), 1e-2
    xs, ys, rs, squares, largest = [], [x0], [], 0.0, 0.0
    for _ in range(40):
        far = max(np.linalg.norm(x - x0) for x in xs + ys)
        rs.append(max(first * (1 + np.linalg.norm(x0)), far))
        w, alpha = np.cumsum(rs), np.sum(rs) / rs[-1]
        m = grad(np.average([*xs, ys[-1]], axis=0, weights=w))
        largest = max(largest, alpha**2 * m @ m)
        xs.append(ys[-1] - alpha * rs[-1] / np.sqrt(squares + largest) * m)
        g = grad(np.average(xs, axis=0, weights=w))
        squares += alpha**2 * (g - m) @ (g - m)
        ys.append(ys[-1] - alpha * rs[-1] / np.sqrt(squares + largest) * g)

    with jax.enable_x64(True):
        tx, p = gk.chain(gk.step_by_u_dog(first_distance=first)), jnp.asarray(x0)
        state, update = tx.init(p), jax.jit(tx.update)
        for _ in range(80):
            u, state = update(grad(p), state, p)
            p += u
        found = gk.eval_params(state, p)
        assert not np.allclose(found, p, 1e-3)
    np.testing.assert_allclose(found, np.average(xs, axis=0, weights=w), rtol=1e-9)
    assert np.sum(scales * np.asarray(found) ** 2) < 4 * np.sum(x0**2) / 40**2


def bowl(scale):
    """A loss, and an update of it at its own gradient."""
    f = lambda p: scale * jnp.sum(p["a"] ** 2) + jnp.sum(p["b"] ** 2)

    def step(tx, p, **extra):
        value, g = jax.value_and_grad(f)(p)
        return tx.update(g, tx.init(p), p, value=value, value_fn=f, **extra)[0]

    return f, step


@pytest.mark.parametrize("scale,rate,falls", [(1.0, 0.3, True), (5.0, 0.3, False)])
def test_model_building_bends_steps_that_do_not_fall_enough(scale, rate, falls):
    """Along each leaf, whose own curvature it then knows, it does not go too far."""
    f, step = bowl(scale)
    tx, p = gk.step_by_model_building(rate), {"a": jnp.ones(2), "b": -jnp.ones(3)}
    u = step(tx, p)
    if falls:
        jax.tree.map(
            lambda x, g: np.testing.assert_allclose(x, -rate * g), u, jax.grad(f)(p)
        )
        return
    ratio = 2 * scale * rate  # of the change of the gradient, to itself
    for k, r in (("a", ratio), ("b", 2 * rate)):
        want = -rate * 0.99 / (1 + 2 * 0.99 * r)
        np.testing.assert_allclose(u[k], want * jax.grad(f)(p)[k], rtol=1e-5)
    assert f(optax.apply_updates(p, u)) < f(p)


def test_model_building_gives_its_loss_the_arguments_that_it_names():
    loss = lambda p, batch: jnp.sum((p - batch) ** 2)
    tx, p, batch = gk.step_by_model_building(0.4), jnp.zeros(2), jnp.ones(2)
    value, g = jax.value_and_grad(loss)(p, batch)
    extra = {"value": value, "value_fn": loss, "batch": batch, "others": None}
    u, _ = tx.update(g, tx.init(p), p, **extra)
    np.testing.assert_allclose(u, 0.8 * batch, rtol=1e-6)
    broken = lambda p: jnp.where(jnp.sum(p) > 0, jnp.nan, 1.0) * jnp.sum(p + 1)
    with jax.debug_nans(False):
        u, _ = tx.update(g, tx.init(p), p, value=jnp.float32(2.0), value_fn=broken)
    assert np.all(np.isfinite(u)) and np.all(u < 0.8)
    with pytest.raises(
        ValueError, match="value_fn, the loss as a function of params, must"
    ):
        tx.update(g, tx.init(p), p, value=value)


@pytest.mark.parametrize("name", [*POLYAKS, "model_building"])
def test_a_loss_that_is_no_number_is_refused(name):
    tx = (POLYAKS | {"model_building": gk.step_by_model_building})[name]()
    p, given = jnp.ones((2, 2)), {"value_fn": jnp.sum}
    for value, got in (
        (jnp.ones(2), r"shape \(2,\)"),
        (jnp.ones((1, 1)), "shape "),
        ((jnp.float32(1), None), "tuple"),
    ):
        said = rf"{name}: value must be one number, got {got}.*\. Take its mean\."
        with pytest.raises(ValueError, match=said):
            tx.update(p, tx.init(p), p, value=value, **given)
    tx.update(p, tx.init(p), p, value=1.0, **given)


@pytest.mark.parametrize("value", [jnp.inf, -jnp.inf, jnp.nan])
def test_model_building_bends_where_the_loss_was_not_finite(value):
    tx, p = gk.step_by_model_building(0.1), jnp.ones(2)
    f = lambda p: jnp.sum(p**2)
    with jax.debug_nans(False):
        u, _ = tx.update(2 * p, tx.init(p), p, value=jnp.float32(value), value_fn=f)
    np.testing.assert_allclose(u, -0.2 * 0.99 / (1 + 2 * 0.99 * 0.2), rtol=1e-5)
