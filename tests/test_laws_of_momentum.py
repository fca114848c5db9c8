"""What momenta promise: the property each paper is known for, small and by definition."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit.testing import check

Maker = Callable[[], optax.GradientTransformation]


def descend(
    tx: optax.GradientTransformation, slope: Callable[[Any], Any], p: Any, steps: int
) -> jax.Array:
    """Every parameter vector on the way, `[steps, size]`, under the gradient `slope(p)`."""
    tx = optax.with_extra_args_support(tx)

    def move(carry: Any, _: None) -> tuple[Any, Any]:
        p, state = carry
        updates, state = tx.update(slope(p), state, p)
        p = optax.apply_updates(p, updates)
        return (p, state), p

    _, path = jax.lax.scan(move, (p, tx.init(p)), None, steps)
    return path


def bilinear(p: jax.Array) -> jax.Array:
    """Both players' gradients in the game `min over x, max over y of x * y`."""
    return jnp.stack([p[1], -p[0]])


def distance(tx: optax.GradientTransformation, steps: int = 1000) -> float:
    """How far from the equilibrium at 0 two players end who began at distance 1."""
    path = descend(gk.chain(tx, gk.step_by_learning_rate(0.1)), bilinear, START, steps)
    return float(jnp.linalg.norm(path[-1]))


START = jnp.array([0.6, 0.8])
unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x), 1e-30)


@pytest.mark.parametrize("decay,angle", [(0.7, 0.8), (0.8, 0.4), (0.9, 1.0)])
def test_complex_momentum_ends_at_an_equilibrium_that_real_momentum_leaves(
    decay: float, angle: float
):
    assert distance(gk.average_by_complex(decay, angle=angle)) < 0.1
    assert distance(gk.average_by_complex(decay, angle=0.0), 300) > 10
    assert distance(gk.average_by_heavy_ball(decay), 300) > 10


def test_optimism_ends_at_an_equilibrium_that_gradients_leave():
    assert distance(optax.identity()) > 10
    assert distance(gk.average_by_optimism(optax.identity())) < 0.1


def test_complex_momentum_of_no_angle_is_the_heavy_ball():
    gs = np.random.default_rng(0).normal(size=(8, 5))
    for u, want in zip(
        outputs(functools.partial(gk.average_by_complex, 0.9, angle=0.0), gs),
        outputs(gk.average_by_heavy_ball, gs),
    ):
        np.testing.assert_array_equal(u, want)


def outputs(make: Maker, gs: Any) -> list[np.ndarray]:
    """What a transform makes of one vector's gradients."""
    gs = [jnp.asarray(g, jnp.float32) for g in gs]
    tx = optax.with_extra_args_support(make())
    state, out = tx.init(gs[0]), []
    for g in gs:
        u, state = tx.update(g, state, g)
        out.append(np.asarray(u))
    return out


@pytest.mark.parametrize("start", [0.0, 30.0])
def test_lion_ends_in_its_box(start: float):
    """Of half-width `1 / weight_decay`, whatever the gradients; exponentially from outside."""
    pull = jnp.array([-1e3, 1e-3, 5.0, 0.0])
    tx = gk.lion(0.1, weight_decay=0.5)
    path = np.asarray(descend(tx, lambda p: pull, jnp.full(4, start), 200))
    outside = np.maximum(np.abs(path) - 2, 0)
    shrunk = max(start - 2, 0) * 0.95 ** np.arange(1, 201)
    assert np.all(outside <= shrunk[:, None] * (1 + 1e-4) + 1e-4)
    np.testing.assert_allclose(path[-1, :3], [2.0, -2.0, -2.0], atol=0.01)


def test_lion_kappa_ends_in_the_ball_of_its_norm():
    pull = jnp.array([3.0, -4.0])
    tx = gk.lion_kappa(0.1, kappa=unit, weight_decay=0.5)
    path = descend(tx, lambda p: pull, jnp.full(2, 30.0), 300)
    np.testing.assert_allclose(path[-1], [-1.2, 1.6], atol=1e-3)


def test_lion_kappa_of_a_sign_is_lion():
    gs = np.random.default_rng(1).normal(size=(8, 5))
    for u, want in zip(
        outputs(gk.average_by_lion_kappa, gs), outputs(gk.average_by_lion, gs)
    ):
        np.testing.assert_array_equal(u, want)


def test_lion_kappa_is_composed_where_no_function_is_an_argument():
    make = lambda b1=0.9, b2=0.8: gk.average_by_lion_kappa(unit, b1=b1, b2=b2)
    (row,) = check(make, laws=["composition"])
    assert row.outcome == "pass", row.reason


def test_running_median_forgets_an_outlier_and_keeps_what_lasts():
    gs = np.ones((9, 3))
    gs[4] = [1e9, -1e9, np.nan]
    for u in outputs(gk.average_by_running_median, gs):
        np.testing.assert_array_equal(u, 1)
    gs = np.repeat([[1.0], [5.0]], 4, axis=0)
    seen = np.concatenate(outputs(gk.average_by_running_median, gs))
    np.testing.assert_array_equal(seen, [1, 1, 1, 1, 1, 5, 5, 5])


def test_random_lengths_are_exponential_of_mean_one():
    """Mean and deviation 1, and a share `exp(-x)` above `x`; one length for all leaves."""
    tx = gk.average_by_random_scaling(decay=0.0)
    g = {"a": jnp.ones(()), "b": -2 * jnp.ones(2)}

    def draw(state: Any, _: None) -> tuple[Any, Any]:
        u, state = tx.update(g, state)
        return state, u

    _, u = jax.lax.scan(draw, tx.init(g), None, 4000)
    np.testing.assert_allclose(u["b"], -2 * np.repeat(u["a"][:, None], 2, 1), rtol=1e-6)
    assert abs(jnp.mean(u["a"]) - 1) < 0.06 and abs(jnp.std(u["a"]) - 1) < 0.09
    for x in (0.5, 1.0, 3.0):
        assert abs(jnp.mean(u["a"] > x) - np.exp(-x)) < 0.03


def test_random_lengths_take_seeds_keys_and_their_data():
    g, seed = jnp.ones(2), 5
    key = jax.random.key(seed)
    kinds = [seed, key, jax.random.key_data(key)]
    first, *others = [
        outputs(functools.partial(gk.average_by_random_scaling, key=k), [g] * 3)
        for k in kinds
    ]
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_mars_leaves_a_steady_gradient_alone():
    gs = [np.array([1.0, -2.0])] * 4
    for u in outputs(gk.average_by_mars, gs)[1:]:
        np.testing.assert_array_equal(u, gs[0])


def test_mars_leads_a_growing_gradient():
    """With `gamma` 1 a decayed average follows a line without lag."""
    gs = [np.array([float(t)]) for t in range(1, 200)]
    make = lambda: gk.chain(
        gk.average_by_mars(gamma=1.0, b1=0.9), optax.ema(0.9, debias=False)
    )
    np.testing.assert_allclose(outputs(make, gs)[-1], gs[-1], rtol=1e-5)
    late = outputs(lambda: optax.ema(0.9, debias=False), gs)[-1]
    np.testing.assert_allclose(late, gs[-1] - 9, rtol=1e-5)


def test_adan_of_a_steady_gradient_is_adam():
    gs = [np.array([1.0, -20.0, 0.0])] * 6
    adam = outputs(functools.partial(gk.scale_by_adam, b1=0.98, b2=0.99), gs)
    for u, want in zip(outputs(gk.scale_by_adan, gs), adam):
        np.testing.assert_allclose(u, want, rtol=1e-5)


def test_madgrad_without_gradients_returns_to_its_anchor():
    tx = gk.madgrad(0.1)
    p0, moved = jnp.zeros(3), jnp.array([1.0, -2.0, 3.0])
    zero = jnp.zeros(3)
    _, state = tx.update(zero, tx.init(p0), p0)
    u, _ = tx.update(zero, state, moved)
    np.testing.assert_allclose(u, -0.1 * moved, rtol=1e-6)


PEERS: dict[str, tuple[Maker, Maker]] = {
    "madgrad": (
        lambda: gk.madgrad(0.1, eps=1e-6),
        lambda: optax.contrib.madgrad(0.1, eps=1e-6),
    ),
    "adan where b2 and 1 - b2 are one": (
        lambda: gk.adan(0.1, b2=0.5, weight_decay=0.1),
        lambda: optax.adan(0.1, b2=0.5, eps_root=0.0, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_is_what_optax_does(name: str):
    gs = np.random.default_rng(2).normal(size=(8, 5))
    with jax.numpy_dtype_promotion("standard"):
        ours, theirs = (outputs(make, gs) for make in PEERS[name])
    for u, want in zip(ours, theirs):
        np.testing.assert_allclose(u, want, rtol=1e-4, atol=1e-6)


def test_optimism_of_the_gradient_is_optax_s_after_the_first_guess():
    """Ours has none before the first gradient; optax's is that gradient itself."""
    gs = np.random.default_rng(3).normal(size=(8, 5))
    ours = outputs(lambda: gk.average_by_optimism(optax.identity()), gs)
    theirs = outputs(optax.scale_by_optimistic_gradient, gs)
    np.testing.assert_allclose(ours[0], 2 * theirs[0], rtol=1e-6)
    np.testing.assert_allclose(ours[1:], theirs[1:], rtol=1e-5, atol=1e-6)
