"""Diagnostics of the gradients of examples: exact values, known distributions, bad input, pictures."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

import gradkit as gk

matplotlib.use("Agg")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean_of(w: Any, x: Any) -> Any:
    """A loss whose gradients are the examples."""
    return jnp.mean(x @ w)


def squared(w: Any, batch: Any) -> Any:
    x, y = batch
    return jnp.mean(jnp.square(x @ w - y)) / 2


def mlp(seed: int = 0) -> Any:
    draw = lambda *shape: jnp.asarray(rng(seed).normal(size=shape), jnp.float32)
    return {"in": {"w": draw(3, 4), "b": draw(4)}, "out": draw(4, 3)}


def logits(p: Any, x: Any) -> Any:
    return jnp.tanh(x @ p["in"]["w"] + p["in"]["b"][None]) @ p["out"]


def cross_entropy(p: Any, batch: Any) -> Any:
    x, y = batch
    logp = jax.nn.log_softmax(logits(p, x))
    return -jnp.mean(jnp.take_along_axis(logp, y[:, None], 1))


def labelled(m: int = 7, seed: int = 1) -> Any:
    x = jnp.asarray(rng(seed).normal(size=(m, 3)), jnp.float32)
    return x, jnp.asarray(rng(seed).integers(0, 3, m), jnp.int32)


@functools.cache
def looped() -> list[Any]:
    """Gradients of each example, one by one, in float64."""
    x, y = labelled()
    gradient = jax.jit(jax.grad(cross_entropy))
    gs = [gradient(mlp(), (x[i : i + 1], y[i : i + 1])) for i in range(len(y))]
    return [jax.tree.map(lambda g: np.asarray(g, np.float64), g) for g in gs]


def flat(g: Any) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(g)])


# Coherence


def test_coherence_of_identical_gradients_is_one_and_of_orthogonal_ones_one_of_m():
    same = gk.measure_by_coherence(mean_of, jnp.ones(3), jnp.ones((5, 3)))
    np.testing.assert_allclose(same[:3], (1, 5, 1), rtol=1e-6)
    apart = gk.measure_by_coherence(mean_of, jnp.ones(6), 2 * jnp.eye(6), microbatch=4)
    np.testing.assert_allclose(apart[:3], (1 / 6, 1, 0), atol=1e-6)
    np.testing.assert_allclose(apart.norms, 2 * np.ones(6))
    against = gk.measure_by_coherence(mean_of, jnp.ones(1), jnp.array([[1.0], [-1.0]]))
    np.testing.assert_allclose(against[:3], (0, 0, -1), atol=1e-6)


@pytest.mark.parametrize("microbatch", [1, 3, 32])
def test_coherence_is_that_of_a_loop_over_examples(microbatch: int):
    measure = lambda p, b: gk.measure_by_coherence(cross_entropy, p, b, microbatch)
    found = jax.jit(measure)(mlp(), labelled())
    gs = looped()

    def alpha(of: Any) -> float:
        xs = np.stack([np.ravel(of(g)) for g in gs])
        return np.sum(xs.mean(0) ** 2) / np.mean(np.sum(xs**2, 1))

    np.testing.assert_allclose(found.alpha, alpha(flat), rtol=1e-5)
    of_bias = alpha(lambda g: g["in"]["b"])
    np.testing.assert_allclose(found.leaves["in"]["b"], of_bias, rtol=1e-5)
    norms = [np.linalg.norm(flat(g)) for g in gs]
    np.testing.assert_allclose(found.norms, norms, rtol=1e-5)
    pairs = [flat(a) @ flat(b) for a in gs for b in gs if a is not b]
    unbiased = np.mean(pairs) / np.mean(np.square(norms))
    np.testing.assert_allclose(found.unbiased, unbiased, rtol=1e-4)
    assert found.nonfinite == 0


def test_a_gradient_that_is_not_finite_is_counted():
    xs = jnp.array([[1.0, 2.0], [jnp.nan, 1.0], [3.0, jnp.inf]])
    found = gk.measure_by_coherence(mean_of, jnp.ones(2), xs)
    assert found.nonfinite == 2 and jnp.isnan(found.alpha)
    found = gk.measure_by_noise_scale(mean_of, jnp.ones(2), xs)
    assert found.nonfinite == 2 and jnp.isnan(found.noise_scale)
    found = gk.measure_by_gap_change(mean_of, jnp.ones(2), xs, 0.1)
    assert found.nonfinite == 2 and jnp.isnan(found.gap)
    one = gk.measure_by_coherence(mean_of, jnp.ones(2), xs[:1])
    assert one.alpha == 1 and jnp.isnan(one.unbiased)
    none = gk.measure_by_coherence(mean_of, jnp.ones(2), jnp.zeros((3, 2)))
    assert jnp.isnan(none.alpha) and none.nonfinite == 0


def test_what_is_measured_may_be_sharded_and_in_half_precision():
    mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4])
    over = jax.NamedSharding(mesh, jax.P("data"))
    x, y = labelled(8)
    put = jax.device_put((x, y), over)
    at = lambda p, b: gk.measure_by_coherence(cross_entropy, p, b).alpha
    np.testing.assert_allclose(at(mlp(), put), at(mlp(), (x, y)), rtol=1e-5)
    half = jax.tree.map(lambda p: p.astype(jnp.bfloat16), mlp())
    found = gk.measure_by_coherence(cross_entropy, half, (x.astype(jnp.bfloat16), y))
    assert found.alpha.dtype == found.norms.dtype == jnp.float32
    np.testing.assert_allclose(found.alpha, at(mlp(), (x, y)), rtol=0.1)


def test_a_loss_may_use_what_is_traced_around_the_measurement():
    def scaled(scale: Any) -> Any:
        loss = lambda w, x: scale * mean_of(w, x)
        return gk.measure_by_noise_scale(loss, jnp.ones(2), jnp.eye(2)).trace

    np.testing.assert_allclose(jax.jit(scaled)(3.0), 9, rtol=1e-6)
    traces = jax.vmap(scaled)(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(traces, [1, 4], rtol=1e-6)


@pytest.mark.parametrize(
    "name", ["coherence", "noise_scale", "stability", "example_score"]
)
def test_a_second_call_traces_nothing(name: str):
    traces = []

    def loss(w: Any, x: Any) -> Any:
        traces.append(0)
        return mean_of(w, x)

    def rows(w: Any, x: Any) -> Any:
        traces.append(0)
        return x * w[None]

    xs, w = jnp.eye(2), jnp.ones(2)
    call = measures(loss, w, xs).get(
        f"measure_by_{name}",
        lambda: gk.measure_by_example_score(rows, w, xs, np.arange(2)),
    )
    call()
    before = len(traces)
    call()
    assert before > 0 and len(traces) == before


# Noise scale


def regression(draws: int, m: int) -> tuple[Any, Any, float, float]:
    """Batches of Gaussian regression, its parameters, and |g|^2 and tr C in closed form."""
    delta, noise, d = np.array([1.0, -0.5, 0.25, 0.0]), 0.5, 4
    x = rng(3).normal(size=(draws, m, d))
    y = noise * rng(4).normal(size=(draws, m))  # the best parameters are zero
    batch = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    square = float(delta @ delta)
    return jnp.asarray(delta, jnp.float32), batch, square, (d + 1) * square + d * 0.25


@pytest.mark.parametrize("small", [1, 4])
def test_noise_scale_is_unbiased_on_gaussian_regression(small: int):
    delta, batch, square, trace = regression(2000, 12)
    measure = lambda b: gk.measure_by_noise_scale(squared, delta, b, small)
    found = jax.jit(jax.vmap(measure))(batch)
    for values, exact in ((found.trace, trace), (found.square, square)):
        values = np.asarray(values, np.float64)
        error = np.std(values) / len(values) ** 0.5
        assert abs(values.mean() - exact) < 3 * error < 0.1 * exact
    ratio = np.mean(found.trace) / np.mean(found.square)
    np.testing.assert_allclose(ratio, trace / square, rtol=0.1)


@pytest.mark.parametrize("small", [1, 3])
def test_noise_scale_is_the_estimate_from_two_batch_sizes(small: int):
    xs = rng(5).normal(1, 1, size=(12, 4))
    batch = jnp.asarray(xs, jnp.float32)
    found = gk.measure_by_noise_scale(mean_of, jnp.ones(4), batch, small, microbatch=5)
    parts = xs.reshape(-1, small, 4).mean(1)
    of_small, of_big = np.mean(np.sum(parts**2, 1)), np.sum(xs.mean(0) ** 2)
    square = (12 * of_big - small * of_small) / (12 - small)
    trace = (of_small - of_big) / (1 / small - 1 / 12)
    np.testing.assert_allclose(found[:3], (trace / square, trace, square), rtol=1e-5)


def test_noise_scale_where_there_is_no_noise_nothing_else_or_little():
    same = gk.measure_by_noise_scale(mean_of, jnp.ones(2), jnp.ones((4, 2)))
    assert same.noise_scale == same.trace == 0
    lost = gk.measure_by_noise_scale(mean_of, jnp.ones(2), jnp.eye(2) - 0.5)
    assert lost.noise_scale == jnp.inf and lost.square < 0
    none = gk.measure_by_noise_scale(mean_of, jnp.ones(2), jnp.zeros((4, 2)))
    assert jnp.isnan(none.noise_scale) and none.trace == none.square == 0
    xs = 1000 + 0.01 * rng(6).normal(size=(40, 1)).astype(np.float32)
    found = gk.measure_by_noise_scale(mean_of, jnp.ones(1), jnp.asarray(xs))
    exact = np.var(xs.astype(np.float64), ddof=1)
    np.testing.assert_allclose(found.trace, exact, rtol=0.01)


# Gap change


def test_gap_change_is_that_of_training_sets_in_the_mean():
    delta, (x, y), square, trace = regression(4000, 8)
    rate = 1e-3

    def steps(batch: Any) -> Any:
        found = gk.measure_by_gap_change(squared, delta, batch, rate)
        new = delta - rate * jax.grad(squared)(delta, batch)
        train = squared(new, batch) - squared(delta, batch)
        test = (jnp.sum(jnp.square(new)) - jnp.sum(jnp.square(delta))) / 2
        return found, (train, test, test - train)

    found, made = jax.jit(jax.vmap(steps))((x, y))
    for predicted, change in zip(found, made):
        predicted, change = (np.asarray(z, np.float64) for z in (predicted, change))
        error = np.std(predicted - change) / len(change) ** 0.5
        slack = 4 * error + 0.02 * abs(change.mean())  # of second order in the rate
        assert abs(np.mean(predicted - change)) < slack
    closed = -rate * (square + trace / 8), -rate * square, rate * trace / 8
    for predicted, exact in zip(found, closed):
        np.testing.assert_allclose(np.mean(predicted), exact, rtol=0.05)
    one = lambda n: gk.measure_by_gap_change(
        squared, delta, (x[0], y[0]), jnp.array(rate), examples=n
    )
    np.testing.assert_allclose(one(80).gap, one(8).gap / 10, rtol=1e-6)
    assert one(80).test == one(8).test


# Scores of examples


def test_scores_are_those_of_a_loop_of_gradients_and_of_hand():
    x, y = labelled()
    found = gk.measure_by_example_score(logits, mlp(), x, y, microbatch=3)
    norms = [np.linalg.norm(flat(g)) for g in looped()]
    np.testing.assert_allclose(found.grand, norms, rtol=1e-5)
    z = np.asarray(logits(mlp(), x), np.float64)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    wrong = np.linalg.norm(p - np.eye(3)[np.asarray(y)], axis=1)
    np.testing.assert_allclose(found.el2n, wrong, rtol=1e-5)
    np.testing.assert_allclose(found.losses, -np.log(p[np.arange(7), y]), rtol=1e-5)
    np.testing.assert_array_equal(found.correct, z.argmax(1) == np.asarray(y))
    by_hand = gk.measure_by_example_score(
        lambda w, x: x * w[None], jnp.ones(2), jnp.log(jnp.array([[3.0, 1.0]])), [1]
    )
    np.testing.assert_allclose(by_hand.el2n, [0.75 * 2**0.5], rtol=1e-6)


def test_scores_of_wrong_labels_are_nan_where_they_cannot_be_refused():
    x, y = labelled()
    score = lambda p, y: gk.measure_by_example_score(logits, p, x, y)
    found = jax.jit(score)(mlp(), y.at[2].set(3))
    bad = np.arange(7) == 2
    for values in (found.grand, found.el2n, found.losses):
        np.testing.assert_array_equal(np.isnan(values), bad)
    assert found.nonfinite == 1
    masked = lambda p, x: logits(p, x).at[:, 2].set(-jnp.inf)
    found = gk.measure_by_example_score(masked, mlp(), x, jnp.zeros(7, jnp.int32))
    assert found.nonfinite == 0 and np.isfinite(found.grand).all()
    seeds = jax.tree.map(lambda *p: jnp.stack(p), mlp(0), mlp(1))
    both = jax.vmap(lambda p: score(p, y))(seeds).grand
    np.testing.assert_allclose(both[1], score(mlp(1), y).grand, rtol=1e-5)


# Opposing signals


def test_opposing_signals_are_found():
    targets = jnp.array([0.1, 5.0, -6.0, jnp.nan, -0.1, 0.2, -5.0, 6.0])
    loss = lambda w, x: jnp.mean(jnp.square(w - x)) / 2
    found = gk.measure_by_opposing_signals(
        loss, jnp.array(0.0), jnp.array(0.5), targets, count=2, microbatch=3
    )
    np.testing.assert_array_equal(found.worse, [2, 6])
    np.testing.assert_array_equal(found.better, [7, 1])
    assert found.nonfinite == 1
    np.testing.assert_allclose(found[4:7], (-1, 5.5, 5.5), rtol=1e-6)
    change = -0.5 * np.delete(np.asarray(targets, np.float64), 3) + 0.125
    far = np.sort(np.abs(change))[-4:].sum() / np.abs(change).sum()
    np.testing.assert_allclose(found.fraction, far, rtol=1e-6)
    still = gk.measure_by_opposing_signals(
        loss, jnp.array(0.0), jnp.array(0.0), targets[:2], count=1
    )
    assert still.fraction == 0 and still.worse != still.better


# Stability


def least_squares(m: int, d: int, outputs: int, seed: int) -> tuple[Any, np.ndarray]:
    """Inputs `[m, outputs, d]` of squares, and the Hessian of each example."""
    a = rng(seed).normal(size=(m, outputs, d)) * rng(seed).uniform(
        0.2, 2, size=(m, 1, 1)
    )
    return jnp.asarray(a, jnp.float32), np.einsum("mki,mkj->mij", a, a)


def sums(w: Any, a: Any) -> Any:
    return jnp.mean(jnp.sum(jnp.square(a @ w), 1)) / 2


def growth(hs: np.ndarray, rate: float, batch_size: int) -> float:
    """The spectral radius of the map of second moments of SGD, an exact Kronecker operator."""
    n, d, _ = hs.shape
    step = np.eye(d) - rate * hs.mean(0)
    noise = sum(np.kron(h, h) for h in hs) * (n / batch_size - 1) / n**2
    return np.max(np.abs(np.linalg.eigvals(np.kron(step, step) + rate**2 * noise)))


def root(h: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(h)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("batch_size", [1, 2, 6])
def test_rates_called_unstable_are_so_by_the_exact_operator(
    outputs: int, batch_size: int
):
    measure = jax.jit(
        lambda a: gk.measure_by_stability(sums, jnp.zeros(3), a, 0.1, batch_size)
    )
    for seed in range(4):
        a, hs = least_squares(6, 3, outputs, seed)
        found = measure(a)
        mean = hs.mean(0)
        np.testing.assert_allclose(
            found.sharpness, np.linalg.eigvalsh(mean)[-1], rtol=1e-4
        )
        np.testing.assert_allclose(found.trace, np.trace(mean), rtol=1e-5)
        s = [[np.linalg.norm(root(g) @ root(h)) for g in hs] for h in hs]
        np.testing.assert_allclose(found.alignment, s, rtol=1e-4, atol=1e-5)
        tops = np.linalg.eigvalsh(hs)[:, -1]
        np.testing.assert_allclose(found.largest, tops, rtol=1e-4)
        sigma = np.linalg.eigvalsh(s)[-1] / tops.max()
        np.testing.assert_allclose(found.coherence, sigma, rtol=1e-4)
        rates = [
            float(x)
            for x in (
                found.gradient_descent_rate,
                found.coherence_rate,
                found.trace_rate,
            )
        ]
        assert np.isinf(rates[1]) == (batch_size == 6)
        for rate in filter(np.isfinite, rates):
            assert growth(hs, 1.001 * rate, batch_size) > 1
        if batch_size == 6:
            assert growth(hs, 0.999 * rates[0], 6) < 1
        if batch_size == 1 and outputs == 1:
            assert rates[2] <= 2.0001 / np.trace(mean)


def test_rates_are_exact_where_examples_are_orthogonal_or_one_parameter():
    a = 2 * jnp.eye(3)[:, None, :]
    hs = 4 * np.einsum("mi,mj->mij", np.eye(3), np.eye(3))
    found = gk.measure_by_stability(sums, jnp.ones(3), a, 0.48, 2, probes=2)
    np.testing.assert_allclose(found.coherence, 1, rtol=1e-5)
    best = float(found.trace_rate)
    assert growth(hs, 0.999 * best, 2) < 1 < growth(hs, 1.001 * best, 2)
    one = jnp.array([[[1.0]], [[2.0]], [[3.0]]])
    measure = jax.jit(
        lambda rate: gk.measure_by_stability(sums, jnp.ones(1), one, rate, microbatch=2)
    )
    found = measure(0.48)
    hs = np.square(np.array([1.0, 2, 3]))[:, None, None]
    np.testing.assert_allclose(found.largest, [1, 4, 9], rtol=1e-5)
    best = float(found.trace_rate)
    assert growth(hs, 0.999 * best, 1) < 1 < growth(hs, 1.001 * best, 1)
    assert found.is_unstable and not measure(0.99 * best).is_unstable


def test_stability_of_a_model_is_that_of_its_hessians():
    x, y = labelled(4)
    found = gk.measure_by_stability(cross_entropy, mlp(), (x, y), 0.1)
    p, unravel = ravel_pytree(mlp())
    one = lambda p, x, y: cross_entropy(unravel(p), (x[None], y[None]))
    hs = jax.jit(jax.vmap(jax.hessian(one), (None, 0, 0)))(p, x, y)
    hs = np.asarray(hs, np.float64)
    np.testing.assert_allclose(found.trace, np.trace(hs.mean(0)), rtol=1e-4)
    np.testing.assert_allclose(
        found.sharpness, np.linalg.eigvalsh(hs.mean(0))[-1], rtol=1e-4
    )
    pairs = np.einsum("aij,bij->ab", hs, hs)
    s = np.sqrt(np.maximum(pairs, 0))
    np.testing.assert_allclose(found.alignment, s, rtol=1e-3, atol=1e-3)


def test_random_probes_estimate_traces():
    a, hs = least_squares(6, 3, 2, 0)
    found = gk.measure_by_stability(sums, jnp.zeros(3), a, 0.1, probes=2000, key=1)
    np.testing.assert_allclose(found.trace, np.trace(hs.mean(0)), rtol=0.1)
    squares = np.einsum("aij,bij->ab", hs, hs)
    np.testing.assert_allclose(np.square(found.alignment), squares, rtol=0.2, atol=0.1)


def test_stability_without_curvature_or_with_nan():
    flat_ = gk.measure_by_stability(mean_of, jnp.ones(2), jnp.eye(2), 0.1)
    assert flat_.sharpness == 0 and not flat_.is_unstable
    assert flat_.gradient_descent_rate == flat_.trace_rate == jnp.inf
    bad = jnp.ones((2, 1, 2)).at[0, 0, 0].set(jnp.nan)
    found = gk.measure_by_stability(sums, jnp.ones(2), bad, 0.1)
    assert jnp.isnan(jnp.stack(found[1:7])).all() and not found.is_unstable


def test_stability_at_a_saddle_and_where_derivatives_alone_are_finite():
    def saddle(w: Any, x: Any) -> Any:
        bad = jnp.where(jnp.any(x > 5), jnp.nan, 0)
        return jnp.mean(x * (w[0] ** 2 - 3 * w[1] ** 2)) / 2 + bad

    measure = lambda x: gk.measure_by_stability(saddle, jnp.ones(2), x, 0.1)
    found = measure(jnp.ones(2))
    assert found.trace == -2 and found.trace_rate == jnp.inf and not found.is_unstable
    np.testing.assert_allclose(found.gradient_descent_rate, 2, rtol=1e-5)
    axes = found.plot()
    assert "no limit" in [x.get_text() for x in axes.texts]
    plt.close(axes.figure)
    found = measure(jnp.array([6.0, 1.0]))
    assert jnp.isnan(jnp.stack(found[1:7])).all() and not found.is_unstable
    np.testing.assert_array_equal(jnp.isnan(found.largest), [True, False])


# Bad input


def measures(loss: Any, params: Any, batch: Any) -> dict[str, Any]:
    """A call of each diagnostic that takes a loss."""
    return {
        "measure_by_coherence": lambda: gk.measure_by_coherence(loss, params, batch),
        "measure_by_noise_scale": lambda: gk.measure_by_noise_scale(
            loss, params, batch
        ),
        "measure_by_gap_change": lambda: gk.measure_by_gap_change(
            loss, params, batch, 0.1
        ),
        "measure_by_opposing_signals": lambda: gk.measure_by_opposing_signals(
            loss, params, params, batch, 1
        ),
        "measure_by_stability": lambda: gk.measure_by_stability(
            loss, params, batch, 0.1
        ),
    }


BAD: dict[str, Any] = {
    "batch must have .* examples? or more, got 0": (
        mean_of,
        jnp.ones(2),
        np.ones((0, 2)),
    ),
    "batch must have an axis of examples, got shape ()": (mean_of, jnp.ones(2), 1.0),
    "batch must have arrays, got none": (mean_of, jnp.ones(2), {}),
    "leaf b of batch must have an axis of examples": (
        mean_of,
        jnp.ones(2),
        {"a": np.ones((3, 2)), "b": np.ones(())},
    ),
    "as many examples, got {'0': 3, '1': 2}": (
        squared,
        jnp.ones(2),
        (np.ones((3, 2)), np.ones(2)),
    ),
    "loss must return one real number": (
        lambda w, x: x @ w,
        jnp.ones(2),
        np.ones((3, 2), np.float32),
    ),
    "(params|before) must have one entry or more": (mean_of, {}, np.ones((3, 2))),
    "(params|before) must be a real floating array, got int32. Pass what is trained": (
        mean_of,
        jnp.ones(2, jnp.int32),
        np.ones((3, 2)),
    ),
}


@pytest.mark.parametrize("said", BAD)
def test_bad_input_is_refused_by_name(said: str):
    pattern = said.replace("()", r"\(\)").replace("{", r"\{")
    for name, call in measures(*BAD[said]).items():
        with pytest.raises(
            (ValueError, TypeError), match=f"gradkit.{name}: .*{pattern}"
        ):
            call()


OTHERS: dict[str, Any] = {
    "batch must have 2 examples or more, got 1": lambda: gk.measure_by_noise_scale(
        mean_of, jnp.ones(2), jnp.ones((1, 2))
    ),
    "small must divide the number of examples 6": lambda: gk.measure_by_noise_scale(
        mean_of, jnp.ones(2), jnp.ones((6, 2)), small=4
    ),
    "two parts or more, got 6": lambda: gk.measure_by_noise_scale(
        mean_of, jnp.ones(2), jnp.ones((6, 2)), small=6
    ),
    "microbatch must be a whole number": lambda: gk.measure_by_coherence(
        mean_of, jnp.ones(2), jnp.ones((6, 2)), microbatch=0
    ),
    "learning_rate must be above 0": lambda: gk.measure_by_gap_change(
        mean_of, jnp.ones(2), jnp.ones((6, 2)), -1.0
    ),
    "examples must be a whole number": lambda: gk.measure_by_gap_change(
        mean_of, jnp.ones(2), jnp.ones((6, 2)), 0.1, examples=0
    ),
    "count must be at most half of the 6": lambda: gk.measure_by_opposing_signals(
        mean_of, jnp.ones(2), jnp.ones(2), jnp.ones((6, 2)), count=4
    ),
    "after must have the leaves": lambda: gk.measure_by_opposing_signals(
        mean_of, jnp.ones(2), jnp.ones(3), jnp.ones((6, 2)), count=1
    ),
    "batch_size must be at most": lambda: gk.measure_by_stability(
        mean_of, jnp.ones(2), jnp.ones((6, 2)), 0.1, batch_size=7
    ),
    "key must be a seed": lambda: gk.measure_by_stability(
        mean_of, jnp.ones(2), jnp.ones((6, 2)), 0.1, key=cast(Any, "a")
    ),
    "labels must have the shape": lambda: gk.measure_by_example_score(
        logits, mlp(), labelled()[0], labelled()[1][:3]
    ),
    "labels must be whole numbers": lambda: gk.measure_by_example_score(
        logits, mlp(), labelled()[0], jnp.ones(7)
    ),
    "labels must be from 0 to 2": lambda: gk.measure_by_example_score(
        logits, mlp(), labelled()[0], np.full(7, 3)
    ),
    "logits must return": lambda: gk.measure_by_example_score(
        lambda p, x: logits(p, x)[:, 0], mlp(), *labelled()
    ),
    "batch must have one example or more": lambda: gk.measure_by_example_score(
        logits, mlp(), np.ones((0, 3)), np.ones(0, int)
    ),
}


@pytest.mark.parametrize("said", OTHERS)
def test_arguments_that_do_not_fit_are_refused(said: str):
    with pytest.raises(
        (ValueError, TypeError), match=rf"gradkit.measure_by_\w+: .*{said}"
    ):
        OTHERS[said]()


def normalized() -> Any:
    class Model(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.layer = nnx.Linear(2, 3, rngs=rngs)
            self.norm = nnx.BatchNorm(3, use_running_average=True, rngs=rngs)

    return Model(nnx.Rngs(0))


class Trained(nnx.Variable[Any]):
    """A kind of a user's own."""


def test_the_state_of_a_model_is_no_parameter():
    model, xs = normalized(), np.ones((3, 2), np.float32)
    cases = [
        (model, r"got Model\. Pass nnx.state\(model, nnx.Param\)"),
        ({"of": model}, "got Model at of"),
        (nnx.state(model), "got BatchStat at norm/mean"),
        ({"params": mlp(), "batch_stats": mlp()}, 'Pass variables\\["params"\\]'),
    ]
    mean = lambda p, x: jnp.mean(x)
    for params, said in cases:
        for name, call in measures(mean, params, xs).items():
            with pytest.raises(TypeError, match=f"gradkit.{name}: .*{said}"):
                call()
        others: list[Any] = [
            (gk.measure_by_stable_rank, (params,)),
            (gk.measure_by_interpolation, (jnp.sum, params, params)),
            (gk.measure_by_hessian_spectrum, (jnp.sum, params)),
        ]
        for measure, args in others:
            with pytest.raises(TypeError, match=said):
                measure(*args)
    kept = nnx.state(model, nnx.Param)
    assert list(gk.measure_by_stable_rank(kept).rank) == ["layer/kernel"]
    own = {"w": Trained(jnp.eye(3))}
    assert gk.measure_by_stable_rank(own).rank["w"] == 3


# Pictures


def results() -> dict[str, Any]:
    x, y = labelled(24)
    y = jnp.where(
        jnp.arange(24) < 5, y, jnp.argmax(logits(mlp(), x), 1).astype(y.dtype)
    )
    p, batch = mlp(), (x, y)
    after = jax.tree.map(lambda p, g: p - g, p, jax.grad(cross_entropy)(p, batch))
    noise = gk.measure_by_noise_scale(cross_entropy, p, batch)
    a = least_squares(6, 3, 1, 0)[0]
    stability = gk.measure_by_stability(sums, jnp.zeros(3), a, 0.9)
    nan = jnp.array(jnp.nan)
    return {
        "coherence": gk.measure_by_coherence(cross_entropy, p, batch),
        "noise_scale": noise,
        "lost_noise_scale": noise._replace(noise_scale=jnp.array(jnp.inf)),
        "no_noise_scale": noise._replace(noise_scale=jnp.array(0.0)),
        "gap_change": gk.measure_by_gap_change(cross_entropy, p, batch, 0.1),
        "example_score": gk.measure_by_example_score(logits, p, x, y),
        "opposing_signals": gk.measure_by_opposing_signals(
            cross_entropy, p, after, batch, 3
        ),
        "stability": stability,
        "full_batch": stability._replace(coherence_rate=jnp.array(jnp.inf)),
        "no_coherence": gk.measure_by_coherence(
            cross_entropy, p, (x.at[3].set(jnp.nan), y)
        ),
        "unknown_noise_scale": noise._replace(
            noise_scale=nan, nonfinite=jnp.array(2, jnp.int32)
        ),
        "no_stability": stability._replace(
            gradient_descent_rate=nan, coherence_rate=nan, trace_rate=nan
        ),
    }


def test_every_result_is_drawn():
    for name, result in results().items():
        axes = result.plot()
        axes.figure.canvas.draw()
        assert axes.get_xlabel() or axes.get_ylabel(), name
        assert result.plot(axes) is axes
        bad = {"no_coherence": 1, "unknown_noise_scale": 2}.get(name)
        assert not bad or axes.get_title() == f"not finite: {bad} of the gradients"
        plt.close(axes.figure)
