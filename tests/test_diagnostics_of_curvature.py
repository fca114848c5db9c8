"""Curvature, slices and norms: each against what is known exactly."""

import gc
import importlib
import math
import re
import weakref
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradkit as gk
from gradkit._core.measure import lanczos

X = jax.random.normal(jax.random.key(1), (16, 4))
Y = jax.random.normal(jax.random.key(2), (16, 2))
PARAMS = {
    "b": jnp.full(6, 0.1),
    "v": jax.random.normal(jax.random.key(4), (6, 2)),
    "w": jax.random.normal(jax.random.key(3), (4, 6)),
}
SIZE = 42
BOWL = jnp.array([5.0, 4.0, 3.0, 2.0, 1.0])


def loss(p: Any) -> jax.Array:
    return jnp.mean((jnp.tanh(X @ p["w"] + p["b"][None]) @ p["v"] - Y) ** 2)


def bowl(p: jax.Array) -> jax.Array:
    """Its Hessian is the diagonal `BOWL`."""
    return jnp.sum(BOWL * p**2) / 2


def exact() -> np.ndarray:
    flat, unravel = ravel_pytree(PARAMS)
    return np.asarray(jax.hessian(lambda x: loss(unravel(x)))(flat), np.float64)


def flat(stacked: Any) -> np.ndarray:
    """Stacked trees as rows."""
    leaves = jax.tree.leaves(stacked)
    return np.concatenate([np.reshape(x, (len(x), -1)) for x in leaves], 1)


def plot(method: str) -> Any:
    module = importlib.import_module(f"gradkit._observe.diagnostics.{method}")
    return getattr(module, method.replace("measure_by", "plot"))


# The Hessian's spectrum


def test_eigenpairs_are_those_of_the_whole_matrix():
    h = exact()
    found = jax.jit(
        lambda p: gk.measure_by_hessian_spectrum(loss, p, count=SIZE, steps=99)
    )(PARAMS)
    values = np.linalg.eigvalsh(h)
    np.testing.assert_allclose(found.values, values[::-1], atol=1e-5)
    np.testing.assert_allclose(found.lowest, values[0], atol=1e-5)
    v = flat(found.vectors)
    np.testing.assert_allclose(v @ v.T, np.eye(SIZE), atol=1e-5)
    np.testing.assert_allclose(v @ h, found.values[:, None] * v, atol=1e-5)
    assert float(jnp.max(found.residuals)) < 1e-5


def test_few_steps_find_the_largest_within_their_residuals():
    values = np.linalg.eigvalsh(exact())[::-1]
    find = lambda p: lanczos.top_eigenpairs(loss, p, 3, 16, 0)
    found = jax.jit(find)(PARAMS)
    np.testing.assert_allclose(found.values[0], values[0], rtol=1e-5)
    for value, error in zip(found.values, found.residuals):
        assert np.min(np.abs(values - value)) <= error + 1e-5


def test_moments_are_the_traces_of_powers():
    h, probes = exact(), 60
    found = gk.measure_by_hessian_spectrum(loss, PARAMS, probes=probes, steps=12)
    np.testing.assert_allclose(jnp.sum(found.weights, -1), 1, atol=1e-5)
    keys = jax.random.split(jax.random.key(0), probes)
    v = np.stack([ravel_pytree(lanczos.normal_like(k, PARAMS))[0] for k in keys])
    v = v.astype(np.float64) / np.linalg.norm(v, axis=1, keepdims=True)
    for power in (1, 2, 3):  # quadrature is exact for its probes
        want = SIZE * np.mean(np.sum(v @ np.linalg.matrix_power(h, power) * v, 1))
        np.testing.assert_allclose(found.moment(power), want, rtol=1e-4, atol=1e-4)
    # and these estimate the traces
    assert abs(found.trace - np.trace(h)) < 4 * found.trace_error
    assert 0 < found.trace_error < 3
    np.testing.assert_allclose(found.moment(2), np.sum(h * h), rtol=0.2)
    np.testing.assert_allclose(jnp.trapezoid(found.density, found.grid), 1, atol=1e-3)


def test_equal_eigenvalues_and_zeros_are_each_found_once():
    """The Krylov space ends after three steps, and is continued."""
    loss = lambda p: jnp.sum(p[:3] ** 2) - jnp.sum(p[3:5] ** 2)
    found = gk.measure_by_hessian_spectrum(loss, jnp.ones(8), count=8, probes=2)
    np.testing.assert_allclose(found.values, [2] * 3 + [0] * 3 + [-2] * 2, atol=1e-5)
    plane = gk.measure_by_hessian_spectrum(jnp.sum, jnp.ones(8), count=8, probes=1)
    assert not plane.values.any() and jnp.isnan(plane.trace_error)
    v = flat(plane.vectors)
    np.testing.assert_allclose(v @ v.T, np.eye(8), atol=1e-5)
    tiny = gk.measure_by_hessian_spectrum(lambda p: 1e-25 * bowl(p), BOWL)
    np.testing.assert_allclose(tiny.values, 1e-25 * BOWL, rtol=1e-4)


@pytest.mark.parametrize("spec", [PartitionSpec("d"), PartitionSpec(None, "d")])
def test_vectors_stay_sharded_as_the_parameters_are(spec: PartitionSpec):
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    params = {"v": PARAMS["v"], "w": PARAMS["w"]}
    of = lambda p: lanczos.top_eigenpairs(
        lambda p: loss(p | {"b": PARAMS["b"]}), p, 3, 20, 0
    )
    sharded = jax.device_put(params, NamedSharding(mesh, spec))
    run = jax.jit(of)
    found, one = run(sharded), run(params)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(one)):
        np.testing.assert_allclose(x, y, atol=1e-4)
    assert not found.vectors["w"].sharding.is_fully_replicated
    v = jax.tree.map(lambda x: x[0], one.vectors)
    h = lanczos.hessian_product(lambda p: loss(p | {"b": PARAMS["b"]}), params)(v)
    np.testing.assert_allclose(h["w"], one.values[0] * v["w"], atol=1e-4)
    if spec == PartitionSpec(None, "d"):  # of w the hidden units: nothing is gathered
        text = run.lower({**sharded, "v": params["v"]}).compile().as_text()
        gathered = re.findall(r"= f32\[([\d,]*)\]\S* all-gather", text or "")
        assert all(math.prod(map(int, s.split(","))) < 24 for s in gathered)


# The gradient and top subspaces


def test_overlaps_of_known_subspaces():
    at = jnp.array([1.0, 1.0, 1.0, 1.0, 1.0]) / BOWL  # whose gradient is all ones
    found = gk.measure_by_subspace_overlap(bowl, at, count=2)
    np.testing.assert_allclose(found.fraction, 2 / 5, rtol=1e-4)
    np.testing.assert_allclose(jnp.abs(found.coefficients), 5**-0.5, rtol=1e-4)
    np.testing.assert_allclose(found.cosine, 15 / (5 * 55) ** 0.5, rtol=1e-5)
    assert jnp.isnan(found.overlap)
    turn = jnp.array([[math.cos(0.3), 0, math.sin(0.3), 0, 0]])
    for basis, want in (
        (jnp.eye(5)[:2], 1),
        (jnp.eye(5)[3:], 0),
        (jnp.eye(5)[:1], 0.5**0.5),  # of one and two dimensions
        (turn, math.cos(0.3) ** 2 / 2**0.5),
    ):
        again = gk.measure_by_subspace_overlap(bowl, at, 2, earlier=basis)
        np.testing.assert_allclose(again.overlap, want, atol=1e-4)
    skew = gk.measure_by_subspace_overlap(bowl, at, 2, earlier=jnp.ones((2, 5)))
    assert jnp.isnan(skew.overlap), "no orthonormal basis"
    still = gk.measure_by_subspace_overlap(bowl, jnp.zeros(5), count=2)
    assert jnp.isnan(still.fraction) and jnp.isnan(still.cosine)


# Slices of the loss


def test_filters_have_the_norms_of_the_parameters():
    found = gk.measure_by_landscape(loss, PARAMS, points=3, key=1)
    for i in range(2):
        assert not found.directions["b"][i].any()
        for k in ("v", "w"):
            norms = [
                np.linalg.norm(x, axis=0) for x in (found.directions[k][i], PARAMS[k])
            ]
            np.testing.assert_allclose(*norms, rtol=1e-5)
    a, b = found.places[:, 2]
    assert (a, b) == (1, 1) and found.path.shape == (0, 2)
    at = jax.tree.map(lambda p, d: p + d[0] - d[1], PARAMS, found.directions)
    np.testing.assert_allclose(found.losses[2, 0], loss(at), rtol=1e-5)
    np.testing.assert_allclose(found.losses[1, 1], loss(PARAMS), rtol=1e-5)


def test_given_directions_are_moved_along():
    axes = jnp.eye(5)
    found = jax.jit(lambda p: gk.measure_by_landscape(bowl, p, [axes[0], 2 * axes[2]]))
    found = found(jnp.zeros(5))
    a, b = np.meshgrid(*np.asarray(found.places), indexing="ij")
    np.testing.assert_allclose(found.losses, (5 * a**2 + 3 * 4 * b**2) / 2, rtol=1e-5)


def test_principal_components_of_a_trajectory():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(7, 5)) * [3, 1, 0.5, 0.1, 0.1]
    run = jnp.asarray(points, jnp.float32)
    end = run[-1]
    found = gk.measure_by_landscape(bowl, end, 2, 5, trajectory=run)
    centered = points - points.mean(0)
    _, s, vt = np.linalg.svd(centered)
    d = np.asarray(found.directions)
    np.testing.assert_allclose(np.abs(np.sum(d * vt[:2], 1)), 1, atol=1e-4)
    np.testing.assert_allclose(found.explained, s[:2] ** 2 / np.sum(s**2), rtol=1e-4)
    np.testing.assert_allclose(found.path, (points - points[-1]) @ d.T, atol=1e-4)
    low, high = np.min(found.places, 1), np.max(found.places, 1)
    path = np.asarray(found.path)
    assert (low[None] < path).all() and (path < high[None]).all()
    still = jnp.stack([end] * 4)
    found = gk.measure_by_landscape(bowl, end, 2, 3, trajectory=still)
    np.testing.assert_allclose(found.losses, bowl(end), rtol=1e-6)
    assert jnp.isnan(found.explained).all() and not found.path.any()


def test_ends_of_a_line_are_the_losses():
    other = jax.tree.map(lambda p: p[..., ::-1] - 0.2, PARAMS)
    found = jax.jit(lambda p, q: gk.measure_by_interpolation(loss, p, q))(PARAMS, other)
    np.testing.assert_allclose(found.losses[0], loss(PARAMS), rtol=1e-6)
    np.testing.assert_allclose(found.losses[-1], loss(other), rtol=1e-6)
    np.testing.assert_allclose(found.places, np.linspace(0, 1, 25), atol=1e-6)


def test_barriers_known_in_closed_form():
    down = gk.measure_by_interpolation(bowl, jnp.ones(5), jnp.zeros(5))
    assert down.barrier == 0 and down.rise == 0
    hill = lambda p: jnp.sum(p * (1 - p)) + p.sum()  # a barrier of 1 / 4 on a slope
    found = gk.measure_by_interpolation(hill, jnp.zeros(1), jnp.ones(1), points=101)
    np.testing.assert_allclose([found.barrier, found.at], [0.25, 0.5], atol=1e-5)
    wave = lambda p: jnp.sum(jnp.cos(2 * jnp.pi * p))  # falls by 2, then rises by 2
    found = gk.measure_by_interpolation(wave, jnp.zeros(1), jnp.ones(1), points=101)
    np.testing.assert_allclose([found.barrier, found.rise], [0, 2], atol=1e-5)
    broken = lambda p: jnp.log(jnp.sum(p))
    found = gk.measure_by_interpolation(broken, jnp.ones(1), -jnp.ones(1))
    assert jnp.isnan(found.barrier) and jnp.isnan(found.rise)


# Norms of layers


@pytest.mark.parametrize("shape", [(5, 5), (40, 3), (3, 40), (1, 7)])
def test_gram_bounds_fall_to_the_spectral_norm(shape: tuple[int, int]):
    w = jax.random.normal(jax.random.key(0), shape)
    norm = np.linalg.norm(np.asarray(w, np.float64), 2)
    found = gk.measure_by_gram_norm(w, steps=12)
    np.testing.assert_allclose(found.bounds[0], np.linalg.norm(w), rtol=1e-4)
    assert (found.bounds >= norm).all(), "an upper bound"
    assert (jnp.diff(found.bounds) <= 1e-5).all()
    assert found.bound <= 1.001 * norm
    for scale in (1e25, 1e-30):
        big = gk.measure_by_gram_norm(scale * w, steps=12).bound
        np.testing.assert_allclose(big / scale, found.bound, rtol=1e-5)


def test_gram_bound_of_equal_values_and_of_zeros():
    assert 1 <= gk.measure_by_gram_norm(jnp.eye(16), steps=12).bound <= 1.001
    zero = jnp.zeros((3, 2))
    bound = lambda w: gk.measure_by_gram_norm(w).bound
    value, slope = jax.value_and_grad(bound)(zero)
    assert value == 0 and not slope.any()
    assert jnp.isnan(bound(zero.at[0, 0].set(jnp.nan)))


def test_gram_bound_has_the_derivative_of_the_norm():
    w = jax.random.normal(jax.random.key(5), (6, 4))
    u, _, vt = np.linalg.svd(w)
    slope = jax.grad(lambda w: gk.measure_by_gram_norm(w, steps=10).bound)(w)
    np.testing.assert_allclose(slope, np.outer(u[:, 0], vt[0]), atol=1e-3)
    kernel = jax.random.normal(jax.random.key(6), (3, 2, 2))
    bound = lambda k: gk.measure_by_gram_norm(k, (5,), steps=3).bound
    move = jax.random.normal(jax.random.key(7), kernel.shape)
    h = 1e-2
    change = (bound(kernel + h * move) - bound(kernel - h * move)) / (2 * h)
    slope = jnp.sum(jax.grad(bound)(kernel) * move)
    np.testing.assert_allclose(slope, change, rtol=1e-2)


def matrix_of(f: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The dense matrix of a linear function of arrays of a shape."""
    units = jnp.eye(math.prod(shape)).reshape(-1, *shape)
    return np.reshape(jax.vmap(f)(units), (len(units), -1))


@pytest.mark.parametrize("window", [(3,), (3, 3), (2, 3)])
def test_gram_bound_of_a_convolution(window: tuple[int, ...]):
    size, features = (5, 6)[: len(window)], 2
    kernel = jax.random.normal(jax.random.key(0), (*window, features, 3))

    def convolve(x: jax.Array, pad: Any, mode: str) -> jax.Array:
        x = jnp.pad(x, [*pad, (0, 0)], mode=mode)[None]
        names = ("NHC", "HIO", "NHC") if len(size) == 1 else ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, [1] * len(size), "VALID", dimension_numbers=names
        )

    around = [(0, k - 1) for k in window]
    circular = matrix_of(lambda x: convolve(x, around, "wrap"), (*size, features))
    found = gk.measure_by_gram_norm(kernel, size, steps=12)
    norm = np.linalg.norm(circular, 2)
    assert norm <= found.bound <= 1.001 * norm
    assert found.by_frequency.shape == (*size[:-1], size[-1] // 2 + 1)
    # zero padding: part of a larger circular one
    both = [(k - 1, k - 1) for k in window]
    zeros = matrix_of(lambda x: convolve(x, both, "constant"), (*size, features))
    larger = tuple(n + k - 1 for n, k in zip(size, window))
    assert np.linalg.norm(zeros, 2) <= gk.measure_by_gram_norm(kernel, larger).bound


# Ranks of changes


def test_stable_ranks_are_those_of_singular_values():
    shapes = {
        "tall": (30, 4),
        "wide": (4, 30),
        "conv": (3, 3, 2, 5),
        "stack": (2, 6, 4),
    }
    keys = jax.random.split(jax.random.key(0), len(shapes))
    start = {k: jax.random.normal(key, s) for key, (k, s) in zip(keys, shapes.items())}
    end = jax.tree.map(lambda x: x + 0.1 * jnp.roll(x, 1, -1), start)
    found = jax.jit(gk.measure_by_stable_rank)(end | {"b": BOWL}, start | {"b": BOWL})
    assert set(found.rank) == set(shapes), "vectors have none"
    for k in shapes:
        change = np.asarray(end[k], np.float64) - np.asarray(start[k], np.float64)
        s = np.linalg.svd(change.reshape(-1, change.shape[-1]), compute_uv=False)
        np.testing.assert_allclose(found.rank[k], np.sum(s**2) / s[0] ** 2, rtol=1e-4)
        np.testing.assert_allclose(found.spectral[k], s[0], rtol=1e-4)
        np.testing.assert_allclose(found.frobenius[k], np.sum(s**2) ** 0.5, rtol=1e-4)
        assert found.largest[k] == len(s)
    layers = gk.measure_by_stable_rank(end["stack"], start["stack"], batch_axes=(0,))
    change = np.asarray(end["stack"] - start["stack"])
    s = np.linalg.svd(change, compute_uv=False)
    want = np.sum(s**2, 1) / s[:, 0] ** 2
    np.testing.assert_allclose(layers.rank["params"], want, rtol=1e-4)


def test_stable_rank_at_the_edges():
    rank = lambda *args: float(gk.measure_by_stable_rank(*args).rank["params"])
    w = jnp.outer(jnp.arange(1.0, 6), jnp.arange(1.0, 4))
    assert rank(w, w) == 0, "no difference"
    assert rank(jnp.eye(7, 4)) == 4
    for scale in (1e25, 1.0, 1e-30):
        np.testing.assert_allclose(rank(scale * w), 1, rtol=1e-5)
    assert math.isnan(rank(w.at[0, 0].set(jnp.nan)))
    half = w.astype(jnp.bfloat16)
    np.testing.assert_allclose(rank(half, jnp.zeros_like(half)), 1, rtol=1e-2)


# Learning rates


def test_sensitivity_by_hand():
    of = gk.measure_by_learning_rate_sensitivity
    found = of([0.1, 0.01, 1.0, 10.0], [1.0, 1.5, math.inf, 5.0], 3.0)
    # best 1; above it 0.5, 0, 2 and 2
    np.testing.assert_allclose(found.sensitivity, 4.5 / 4)
    np.testing.assert_array_equal(found.losses, [1.5, 1.0, 3.0, 3.0])
    np.testing.assert_array_equal(found.diverged, [0, 0, 1, 1])
    assert found.best_rate == 0.1 and not found.is_at_edge
    seeds = of([1e-2, 1e-1], [[1.0, 2.0], [math.nan, 1.0]], [4.0, 6.0])
    np.testing.assert_array_equal(seeds.losses, [1.5, 2.5])
    np.testing.assert_allclose(seeds.sensitivity, 0.5)
    assert seeds.is_at_edge and seeds.diverged[1] == 0.5
    lost = of([1e-2, 1e-1], [math.nan, 9.0], 4.0)
    assert np.isnan(lost.sensitivity), "nothing was learned"


def test_sensitivity_of_a_sweep():
    rates = [0.01, 0.1, 0.4, 3.0]
    target = lambda p, batch: jnp.mean((p - batch) ** 2)
    table = gk.sweep(
        lambda learning_rate: gk.sgd(learning_rate, momentum=0.0),
        {"learning_rate": rates},
        loss=target,
        data=lambda key: jnp.ones(3),
        steps=20,
        init=lambda key: jax.random.normal(key, (3,)),
        seeds=2,
    )
    found = gk.measure_by_learning_rate_sensitivity(table)
    again = gk.measure_by_learning_rate_sensitivity(
        rates, table.final, table.losses[0, :, 0]
    )
    np.testing.assert_array_equal(found.losses, again.losses)
    assert found.best_rate == 0.4 and found.sensitivity > 0 and found.diverged[3] > 0


def test_effective_rates_of_weights_scaled_by_two():
    """A weight of twice the norm has a fourth of the rate for SGD, half for a sign."""
    rate = lambda count: jnp.where(count < 1, 0.5, 0.1)
    tx = gk.measure(gk.chain(gk.measure_by_effective_learning_rate(rate)))
    p = {"a": jnp.array([[3.0, 4.0]]), "b": jnp.array([6.0, 8.0]), "z": jnp.zeros(2)}
    u, state = jax.jit(tx.update)(p, tx.init(p), p)
    jax.tree.map(np.testing.assert_array_equal, u, p)  # passed through
    name = "effective_learning_rate/{}/{}".format
    found = gk.metrics(state)
    want = {("a", "sgd"): 0.02, ("b", "sgd"): 0.005, ("a", "sign"): 0.1}
    want |= {("b", "sign"): 0.05, ("z", "sgd"): 0, ("z", "sign"): 0}
    for (leaf, kind), x in want.items():
        np.testing.assert_allclose(found[name(leaf, kind)], x, rtol=1e-6)
    found = gk.metrics(tx.update(p, state, p)[1])
    np.testing.assert_allclose(found[name("a", "sgd")], 0.004, rtol=1e-6)
    axes = plot("measure_by_effective_learning_rate")(found)
    assert [x.get_label() for x in axes.lines] == ["a", "b", "z"]
    plt.close("all")


# Bad input, and pictures

STACK = jnp.ones((3, 5))
BAD = {
    "hessian_spectrum": [
        ((bowl, {}), "params must have one entry or more"),
        ((bowl, BOWL, 6), "count must be at most the number of parameters 5, got 6"),
        ((bowl, BOWL, 4, 3), "count must be at most steps = 3, got 4"),
        ((bowl, BOWL, 0), "count must be a whole number of at least 1"),
        ((lambda p: p, BOWL), "loss must return one real number, got (5,)"),
        ((bowl, jnp.arange(3)), "params must be a real floating array, got int32"),
        ((bowl, {"f": jnp.sum}), "eqx.partition(model, eqx.is_inexact_array)"),
        (
            (bowl, BOWL.astype(jnp.complex64)),
            "got complex64. Pass the real and the imaginary part",
        ),
        ((bowl, BOWL, 1, 1, 1, 9, 0.0), "width must be above 0"),
        ((bowl, BOWL, 1, 1, 1, 9, 0.1, "a"), "key must be a seed or a key"),
    ],
    "subspace_overlap": [
        ((bowl, BOWL, 6), "count must be at most the number of parameters 5"),
        ((bowl, BOWL, 2, 9, STACK[:, :4]), "shape (4,) instead of (5,)"),
        ((bowl, BOWL, 2, 9, jnp.float32(1.0)), "earlier must have 1 or more"),
    ],
    "landscape": [
        ((bowl, {}), "params must have one entry or more"),
        ((bowl, BOWL, 3), "directions must be 1 or 2, or as many trees, got 3"),
        ((bowl, BOWL, [BOWL[:2]]), "each direction must be a tree like params"),
        ((bowl, BOWL, 2, 2), "points must be at least 3"),
        ((bowl, BOWL, 2, 3, -1.0), "radius must be above 0"),
        ((bowl, BOWL, 2, 3, None, STACK[:2]), "trajectory must have 3 or more"),
    ],
    "interpolation": [
        (
            (bowl, BOWL, BOWL[:2]),
            "end must be a tree like start, got shape (2,) instead of (5,). Pass",
        ),
        ((bowl, {}, {}), "start must have one entry or more"),
        ((bowl, BOWL, BOWL, 2), "points must be at least 3"),
    ],
    "gram_norm": [
        ((BOWL,), "weight must have 0 axes of the window, then in and out"),
        ((STACK, (4,)), "weight must have 1 axes of the window"),
        ((STACK[None], (0,)), "input_shape must be at least the window (1,)"),
        ((STACK[:0],), "weight must have one entry or more"),
        ((STACK, (), 0), "steps must be a whole number of at least 1"),
    ],
    "stable_rank": [
        ((BOWL,), "params must have one matrix or more, got shapes [(5,)]"),
        ((STACK, STACK[:2]), "start must be a tree like params"),
        ((STACK, None, (0,)), "one matrix or more besides batch_axes (0,), got"),
        ((STACK, None, 0), "batch_axes must be a tuple, got 0. Pass (0,)"),
        (
            (STACK, None, (7,)),
            "batch_axes must be axes of leaves, which have at most 2",
        ),
    ],
    "learning_rate_sensitivity": [
        (([0.1], [1.0], 2.0), "rates must be two numbers or more, got shape (1,)"),
        (([0.1, 0.1], [1.0, 1.0], 2.0), "rates must be different"),
        (([0.1, -1.0], [1.0, 1.0], 2.0), "finite and above 0"),
        (([0.1, 1.0], [1.0], 2.0), "losses must have shape (2,)"),
        (([0.1, 1.0], [1.0, 1.0], math.nan), "initial must be finite, got nan"),
        (([0.1, 1.0], [1.0, 1.0]), "initial must be given with rates"),
    ],
    "effective_learning_rate": [
        ((-1.0,), "learning_rate must be at least 0"),
        (("a",), "learning_rate must be one number or a schedule"),
    ],
}


@pytest.mark.parametrize("method", BAD)
def test_bad_input_is_refused_by_name(method: str):
    name = f"measure_by_{method}"
    for args, text in BAD[method]:
        with pytest.raises((TypeError, ValueError)) as refused:
            getattr(gk, name)(*args)
        assert text in str(refused.value), refused.value
        assert str(refused.value).startswith(f"gradkit.{name}: ")


def test_a_loss_of_nan_gives_nan():
    lost = lambda p: jnp.sum(p**2) * jnp.nan
    found = gk.measure_by_hessian_spectrum(lost, BOWL, count=2, probes=2, points=9)
    assert jnp.isnan(found.values).all() and jnp.isnan(found.trace)
    assert jnp.isnan(gk.measure_by_subspace_overlap(lost, BOWL, count=1).fraction)
    assert jnp.isnan(gk.measure_by_landscape(lost, BOWL, 1, 3).losses).all()
    line = gk.measure_by_interpolation(lost, BOWL, BOWL, 3)
    assert jnp.isnan(line.barrier) and jnp.isnan(line.at)
    constant = lambda p: bowl(p) + jnp.where(p[0] > 0, jnp.nan, jnp.inf)
    for at in (BOWL, -BOWL):  # derivatives alone are finite
        found = gk.measure_by_hessian_spectrum(constant, at, 2, probes=2, points=9)
        assert all(jnp.isnan(x).all() for x in jax.tree.leaves(found))
        assert found.plot(plt.figure().gca()).get_title() == "not finite"
        plt.close("all")
    found = gk.measure_by_subspace_overlap(constant, BOWL, count=1)
    assert jnp.isnan(jnp.hstack(found[:5])).all()


# Programs


class Far(eqx.Module):
    """A loss without a hash."""

    target: jax.Array

    def __call__(self, p: Any) -> jax.Array:
        return jnp.sum((p - self.target) ** 2)


@pytest.mark.parametrize(
    "name", ["hessian_spectrum", "subspace_overlap", "landscape", "interpolation"]
)
def test_a_second_call_traces_nothing(name: str):
    traces = 0

    def counted(p: Any) -> jax.Array:
        nonlocal traces
        traces += 1
        return bowl(p)

    rest = {"landscape": (1, 3), "interpolation": (2 * BOWL, 3)}.get(name, (2, 3))
    call = lambda: getattr(gk, f"measure_by_{name}")(counted, BOWL, *rest)
    call()
    before = traces
    call()
    assert before > 0 and traces == before


def test_a_loss_is_compiled_anew_where_it_has_changed():
    batch = jnp.ones(5)
    of = lambda p: jnp.sum(batch * p)
    first = lambda loss: gk.measure_by_interpolation(loss, BOWL, BOWL, 3).losses[0]
    assert first(of) == 15
    batch = 2 * batch
    assert first(of) == 30
    assert first(Far(BOWL)) == 0 and first(Far(BOWL - 1)) == 5  # that has no hash


def test_a_loss_is_forgotten_with_its_programs():
    big = jnp.ones(5)
    loss = lambda p: jnp.sum(big * p)
    gk.measure_by_interpolation(loss, BOWL, BOWL, 3)
    held = weakref.ref(loss)
    del loss
    gc.collect()
    assert held() is None


def test_every_result_can_be_drawn():
    run = jnp.stack([BOWL, 2 * BOWL, BOWL**2])
    results = [
        gk.measure_by_hessian_spectrum(bowl, BOWL, probes=1, points=9),
        gk.measure_by_subspace_overlap(bowl, BOWL, 2, earlier=jnp.eye(5)[:2]),
        gk.measure_by_landscape(bowl, BOWL, 1, 3),
        gk.measure_by_landscape(bowl, BOWL, 2, 3, trajectory=run),
        gk.measure_by_interpolation(bowl, BOWL, -BOWL, 3),
        gk.measure_by_gram_norm(STACK, steps=1),
        gk.measure_by_stable_rank({"w": STACK}),
        gk.measure_by_learning_rate_sensitivity([0.1, 1.0], [1.0, math.nan], 2.0),
    ]
    for result in results:
        axes = plt.figure().gca()
        assert result.plot(axes) is axes
        assert axes.get_xlabel() and axes.has_data()
        axes.figure.canvas.draw()
        plt.close("all")
    assert results[-1].plot().get_xlabel() == "learning rate"
    blocks = gk.measure_by_stable_rank({f"b{i}": jnp.eye(3) for i in range(12)})
    axes = blocks.plot()
    assert [x.get_text() for x in axes.get_yticklabels()][:3] == ["b0", "b1", "b2"]
    assert [x.get_text() for x in axes.get_xticklabels()] == ["1", "2"]
    plt.close("all")


def test_stable_ranks_of_many_layers_are_each_of_its_own_start():
    starts = jax.random.normal(jax.random.key(3), (12, 4, 3))
    ones = jnp.outer(jnp.arange(4.0), jnp.ones(3))
    before = {"a": [*starts], "a-b": starts[0]}  # paths sort otherwise than leaves
    after = jax.tree.map(lambda x: x + ones, before)
    found = gk.measure_by_stable_rank(after, before)
    assert len(found.rank) == 13
    for rank in found.rank.values():
        np.testing.assert_allclose(rank, 1, rtol=1e-4)
