"""The polar factor in all its forms, and the promises of the methods that follow it."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import gradkit as gk
from gradkit._core.matrix import newton_schulz, stacks
from gradkit._core.matrix.polar import polar_factor, runs

# Each published set: the least share of the norm, and where the values above it end.
BANDS = {
    "JORDAN": (newton_schulz.JORDAN, 1 / 650, 0.68, 1.21),
    "YOU": (newton_schulz.YOU, 1 / 650, 0.69, 1.15),
    "POLAR_EXPRESS": (newton_schulz.POLAR_EXPRESS, 1 / 2000, 0.999, 1.001),
    "POLAR_EXPRESS[:5]": (newton_schulz.POLAR_EXPRESS[:5], 1 / 650, 0.87, 1.13),
    "CANS": (newton_schulz.CANS, 1 / 1000, 0.88, 1.12),
    "DEEPSEEK": (newton_schulz.DEEPSEEK, 1 / 5000, 0.999, 1.001),
    "CUBIC": (newton_schulz.CUBIC, 1 / 100, 0.77, 1.31),
}
EACH = pytest.mark.parametrize("name", BANDS)
SIDES = pytest.mark.parametrize("sides", [(24, 24), (16, 30), (12, 48)])


def rotation(rng: np.random.Generator, n: int) -> np.ndarray:
    """A random orthogonal matrix."""
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


def with_values(sides: tuple[int, int], least: float) -> np.ndarray:
    """A random matrix of norm one, whose singular values fall to `least`, or a little above."""
    small, large = sides
    rng = np.random.default_rng(0)
    values = np.geomspace(1, least, small)
    values[1:] = np.maximum(values[1:], 1.02 * least * np.linalg.norm(values))
    values /= np.linalg.norm(values)
    return (rotation(rng, small) * values) @ rotation(rng, large)[:small]


def draw(*sides: int, seed: int = 0) -> jax.Array:
    """Random float32 numbers."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=sides), jnp.float32)


def polar(
    x, coefficients: newton_schulz.Coefficients = newton_schulz.JORDAN, dtype=None
) -> np.ndarray:
    """The library's polar factor of a matrix, computed from float32."""
    x = jnp.asarray(x, jnp.float32)
    return np.asarray(polar_factor(x, 0.0, coefficients, dtype), np.float64)


@SIDES
@EACH
def test_singular_values_end_in_the_published_band(name: str, sides) -> None:
    """So the distance from the exact polar factor, `U V^T`, is known too."""
    coefficients, least, low, high = BANDS[name]
    g = with_values(sides, least)
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    got = polar(g, coefficients)
    values = np.linalg.svd(got)[1]
    assert low < values.min() and values.max() < high, values
    assert np.linalg.norm(got - u @ vt, 2) < max(1 - low, high - 1) + 1e-3


@SIDES
@pytest.mark.parametrize("least", [1e-2, 1e-4, 1e-9])
@EACH
def test_it_is_the_iteration_on_the_singular_values(name: str, sides, least) -> None:
    """Also where Gram matrices stand in for the matrix, and values are lost in rounding."""
    g = with_values(sides, least)
    u, s, vt = np.linalg.svd(g, full_matrices=False)
    for a, b, c in BANDS[name][0]:
        s = a * s + b * s**3 + c * s**5
    np.testing.assert_allclose(polar(g, BANDS[name][0]), (u * s) @ vt, atol=1e-3)


@SIDES
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", ["JORDAN", "YOU", "POLAR_EXPRESS", "DEEPSEEK"])
def test_half_precision_stays_near_the_band(name: str, dtype, sides) -> None:
    coefficients, _, low, high = BANDS[name]
    values = np.linalg.svd(polar(with_values(sides, 1 / 100), coefficients, dtype))[1]
    assert low - 0.05 < values.min() and values.max() < high + 0.05, values


@EACH
def test_gram_matrices_are_kept_only_where_that_is_cheaper(name: str) -> None:
    coefficients = BANDS[name][0]
    for small, large in [(32, 32), (32, 48), (32, 49), (32, 128)]:
        found = runs(coefficients, (small, large), jnp.float32)
        assert sum(found, ()) == coefficients
        assert (len(found) < len(coefficients)) == (2 * large > 3 * small)


@EACH
def test_it_turns_with_its_matrix(name: str) -> None:
    rng, coefficients = np.random.default_rng(1), BANDS[name][0]
    g, left, right = with_values((12, 48), 0.01), rotation(rng, 12), rotation(rng, 48)
    turned = polar(left @ g @ right, coefficients)
    np.testing.assert_allclose(turned, left @ polar(g, coefficients) @ right, atol=1e-3)


@EACH
def test_it_does_not_see_the_scale_and_is_bounded(name: str) -> None:
    tx = gk.normalize_by_polar(eps=0.0, coefficients=BANDS[name][0])
    g = draw(12, 48)
    u, _ = tx.update(g, ())
    for scale in (1e-30, 1e25):
        np.testing.assert_allclose(tx.update(g * scale, ())[0], u, atol=1e-3)
    assert np.linalg.norm(u, 2) < 2 * 1.31
    tall, _ = tx.update(g.T, ())
    np.testing.assert_allclose(2 * tall.T, u, atol=1e-4)


@EACH
def test_a_rank_that_is_lacking_stays_lacking(name: str) -> None:
    """Nothing appears where there was nothing, and a zero matrix stays zero."""
    tx = gk.normalize_by_polar(eps=0.0, coefficients=BANDS[name][0])
    g = draw(12, 3) @ draw(3, 48, seed=1)
    u, _, vt = np.linalg.svd(np.asarray(g, np.float64), full_matrices=False)
    got = np.asarray(tx.update(g, ())[0], np.float64)
    outside = got - u[:, :3] @ u[:, :3].T @ got @ vt[:3].T @ vt[:3]
    assert np.linalg.norm(outside, 2) < 0.02
    assert not np.any(tx.update(0 * g, ())[0])


@pytest.mark.parametrize("count", [1, 2, 11])
def test_many_matrices_are_worked_as_one_by_one(count: int) -> None:
    xs = [draw(6, 15, seed=i) for i in range(count)] + [draw(3, 6, 15), draw(5, 5)]
    each = functools.partial(polar_factor, eps=0.0)
    together = jax.jit(functools.partial(stacks.map_shapes, each))(xs)
    for x, y in zip(xs, together):
        np.testing.assert_allclose(y, each(x), atol=1e-5)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_devices_of_a_mesh_share_the_matrices(kind: AxisType) -> None:
    """Eleven matrices on eight devices: each loops over two, and the result is the same."""
    gs = [draw(32, 64, seed=i) for i in range(11)]
    tx = gk.normalize_by_polar()
    alone, _ = jax.jit(tx.update)(gs, ())
    mesh = jax.make_mesh((4, 2), ("x", "y"), (kind, kind))
    with jax.set_mesh(mesh):
        spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x", "y"))
        there = jax.device_put(gs, spread)
        step = jax.jit(tx.update).lower(there, ()).compile()
        shared, _ = step(there, ())
    loops = re.findall(r'known_trip_count":\{"n":"(\d+)"', step.as_text())
    assert loops == ["2"], loops
    for a, b in zip(shared, alone):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_neurons_of_a_first_update_are_alike_and_the_norm_is_kept() -> None:
    tx, g = gk.scale_by_neuron_norm(eps=0.0), draw(4, 5, 6)
    u, _ = tx.update(g, tx.init(g))
    sizes = np.linalg.norm(np.asarray(u).reshape(20, 6), axis=0)
    np.testing.assert_allclose(sizes, sizes[0], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(u), np.linalg.norm(g), rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neurons_of_scanned_layers_are_those_of_the_layers(axis: int) -> None:
    layers = [draw(4, 6, seed=i) for i in range(3)]
    tx = gk.scale_by_neuron_norm()
    apart = [tx.update(g, tx.init(g))[0] for g in layers]
    tx, g = gk.scale_by_neuron_norm(batch_axes=(axis,)), jnp.stack(layers, axis)
    np.testing.assert_allclose(
        tx.update(g, tx.init(g))[0], jnp.stack(apart, axis), atol=1e-5
    )


@pytest.mark.parametrize("sides", [(6, 9), (9, 6)])
@pytest.mark.parametrize("rank", [1, 3, 99])
def test_dion_has_its_rank_and_forgets_nothing_it_did_not_use(sides, rank) -> None:
    """What leaves the momentum is `1 - decay` of what the update's directions show."""
    tx, total = gk.project_by_dion(rank, decay=0.75), 0.0
    state = tx.init(jnp.zeros(sides))
    for t in range(4):
        g = draw(*sides, seed=t)
        total = state.mu + g
        u, state = tx.update(g, state)
        values = np.linalg.svd(np.asarray(u, np.float64))[1]
        assert np.all(values[rank:] < 1e-5 * values[0])
        rows = np.linalg.svd(np.asarray(u, np.float64))[2][: min(rank, *sides)]
        used = np.asarray(total) @ rows.T @ rows
        np.testing.assert_allclose(total - state.mu, 0.25 * used, atol=1e-4)


def test_dion_at_full_rank_comes_to_the_polar_factor_of_a_steady_gradient() -> None:
    g = jnp.asarray(with_values((4, 6), 0.3), jnp.float32)
    tx = gk.project_by_dion(4)
    update = jax.jit(tx.update)
    u, state = update(g, tx.init(g))
    for _ in range(40):
        u, state = update(g, state)
    u0, _, vt = np.linalg.svd(g, full_matrices=False)
    np.testing.assert_allclose(u, np.sqrt(6 / 4) * u0 @ vt, atol=1e-2)


def test_dion_survives_a_gradient_of_zero() -> None:
    tx, g = gk.project_by_dion(2), draw(5, 7)
    u, state = tx.update(0 * g, tx.init(g))
    assert not np.any(u)
    assert np.linalg.norm(tx.update(g, state)[0]) > 1
