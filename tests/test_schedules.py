"""Schedules, and what chooses them, against their papers' formulas in NumPy."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.figure import Figure

import gradkit as gk

LAST = np.iinfo(np.int32).max
GOLDEN = pathlib.Path(__file__).parent / "golden" / "schedule_refinement.npz"
NORMS = [3.0, 2.0, 4.0, 1.0, 1.5, 1.0, 2.0, 0.5, 0.7, 0.4]


def linear_decay(c: int, peak: float, steps: int, warmup: int) -> float:
    if c < warmup:
        return peak * (c + 1) / warmup
    return peak * max(steps - c, 0) / (steps - warmup)


def stable(c: int, peak: float, steps: int, warmup: int, cooldown: int) -> float:
    if c < warmup:
        return peak * (c + 1) / warmup
    return peak * min(1.0, max(steps - c, 0) / cooldown)


def sqrt_cooldown(c: int, peak: float, steps: int, warmup: int, cooldown: int) -> float:
    start = steps - cooldown
    if c >= steps:
        return 0.0
    if c < start:
        return peak * min(1.0, (c + 1) / warmup)
    return peak * (1 - np.sqrt((c - start) / cooldown))


def inverse_root(c: int, peak: float, warmup: int) -> float:
    t = c + 1  # the paper has d_model^-0.5 in place of peak * warmup^0.5
    return peak * warmup**0.5 * min(t**-0.5, t * warmup**-1.5)


def one_cycle_rate(c: int, peak: float, steps: int, cycle: int, **ends: Any) -> float:
    low, last = ends["start"] * peak, ends["end"] * peak
    return np.interp(c, [0, cycle / 2, cycle, steps], [low, peak, low, last])


def one_cycle_momentum(
    c: int, peak: float, cycle: int, slow: float, fast: float, **_: Any
) -> float:
    return np.interp(c, [0, cycle / 2, cycle], [slow, fast, slow])


def refinement(
    c: int, peak: float, norms: Any, power: float, smoothing: float
) -> float:
    assert smoothing == 0
    w = [norm**-power for norm in norms]
    s = [w[t] * sum(w[t + 1 :]) for t in range(len(w))]
    return peak * s[min(c, len(s) - 1)] / max(s)


def step_law(c: int, parameters: float, tokens: float, warmup: int, end: float):
    peak = 1.79 * parameters**-0.713 * tokens**0.307
    steps = int(tokens / (0.58 * tokens**0.571))
    return cosine(c, peak, steps, warmup, end)


def cosine(c: int, peak: float, steps: int, warmup: int, end: float) -> float:
    if c < warmup:
        return peak * (c + 1) / warmup
    angle = np.pi * min(1.0, (c - warmup) / (steps - warmup))
    return end + (peak - end) * (1 + np.cos(angle)) / 2


CYCLE = dict(steps=14, cycle=10, start=0.2, end=0.01, slow=0.9, fast=0.7)
LAW = dict(parameters=1e4, tokens=2e5, warmup=3, end=2e-2)
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any], dict[str, Any]]] = {
    "linear_decay": (
        gk.schedule_by_linear_decay,
        linear_decay,
        dict(peak=2.0, steps=10, warmup=3),
    ),
    "warmup_stable_decay": (
        gk.schedule_by_warmup_stable_decay,
        stable,
        dict(peak=2.0, steps=12, warmup=3, cooldown=5),
    ),
    "sqrt_cooldown": (
        gk.schedule_by_sqrt_cooldown,
        sqrt_cooldown,
        dict(peak=2.0, steps=12, warmup=3, cooldown=5),
    ),
    "cosine": (
        gk.schedule_by_cosine,
        cosine,
        dict(peak=2.0, steps=12, warmup=3, end=0.5),
    ),
    "inverse_root": (
        gk.schedule_by_inverse_root,
        inverse_root,
        dict(peak=2.0, warmup=4),
    ),
    "one_cycle_rate": (
        lambda **hyper: gk.schedule_by_one_cycle(**hyper).learning_rate,
        one_cycle_rate,
        dict(peak=2.0, **CYCLE),
    ),
    "one_cycle_momentum": (
        lambda **hyper: gk.schedule_by_one_cycle(**hyper).momentum,
        one_cycle_momentum,
        dict(peak=2.0, **CYCLE),
    ),
    "refinement": (
        gk.schedule_by_refinement,
        refinement,
        dict(peak=2.0, norms=NORMS, power=1.5, smoothing=0.0),
    ),
    "step_law": (
        lambda **hyper: gk.schedule_by_step_law(**hyper).learning_rate,
        step_law,
        LAW,
    ),
}
EACH = pytest.mark.parametrize("name", CASES)


def message(action: Callable[[], Any]) -> str:
    """The text of the error that `action` raises."""
    with pytest.raises((ValueError, TypeError)) as caught:
        action()
    return str(caught.value)


@EACH
def test_schedules_follow_their_papers(name: str) -> None:
    make, oracle, hyper = CASES[name]
    counts = [*range(20), 1000]
    want = [oracle(c, **hyper) for c in counts]
    with jax.enable_x64(True):
        got = jax.jit(jax.vmap(make(**hyper)))(jnp.array(counts, jnp.int32))
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)


@EACH
def test_schedules_take_any_count(name: str) -> None:
    make, oracle, hyper = CASES[name]
    schedule, want = make(**hyper), oracle(4, **hyper)
    for count in (4, np.int64(4), jnp.int32(4), jnp.float32(4.0)):
        np.testing.assert_allclose(schedule(count), want, rtol=1e-5)
        assert jnp.asarray(schedule(count)).dtype == jnp.float32
    many = schedule(jnp.full((2, 3), 4))
    np.testing.assert_allclose(many, np.full((2, 3), want), rtol=1e-5)
    end, far = schedule(jnp.int32(LAST)), oracle(LAST, **hyper)
    np.testing.assert_allclose(end, far, rtol=1e-5, atol=1e-12)
    assert np.isfinite(schedule(-3))


@pytest.mark.parametrize(
    "name,hyper",
    [
        (name, k)
        for name, (_, _, given) in CASES.items()
        for k, x in given.items()
        if isinstance(x, float) and k not in ("parameters", "tokens", "power")
        if k != "smoothing" and (name, k) != ("one_cycle_momentum", "peak")
        if (name == "one_cycle_rate") <= (k not in ("slow", "fast"))
        if (name == "one_cycle_momentum") <= (k in ("slow", "fast"))
    ],
)
def test_numbers_may_be_traced(name: str, hyper: str) -> None:
    make, _, given = CASES[name]
    values = jnp.array([given[hyper], 1.1 * given[hyper]], jnp.float32)
    counts = jnp.arange(60)
    run = lambda x: make(**{**given, hyper: x})(counts)
    first, second = jax.jit(jax.vmap(run))(values)
    np.testing.assert_allclose(first, make(**given)(counts), rtol=1e-5, atol=1e-7)
    assert np.max(np.abs(first - second)) > 1e-5


@pytest.mark.parametrize("log", ["constant", "decay", "noisy", "spiky"])
@pytest.mark.parametrize("weights,power", [("sgd", 2.0), ("adam_w1", 1.0)])
def test_refinement_equals_the_authors_code(
    log: str, weights: str, power: float
) -> None:
    data = np.load(GOLDEN)
    norms, want = data[f"grad_norms/{log}"], data[f"schedule_{weights}_max1/{log}"]
    with jax.enable_x64(True):
        schedule = gk.schedule_by_refinement(norms, power=power, smoothing=0.0)
        got = jax.vmap(schedule)(jnp.arange(norms.size))
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-14)


def test_refinement_of_constant_norms_is_linear_decay() -> None:
    schedule = gk.schedule_by_refinement(np.full(50, 3.0), peak=0.5)
    line = gk.schedule_by_linear_decay(0.5, steps=49)
    np.testing.assert_allclose(schedule(jnp.arange(50)), line(jnp.arange(50)), 1e-6)


def test_the_median_takes_spikes_out() -> None:
    norms = np.linspace(2.0, 1.0, 60)
    spiky = norms + 100.0 * (np.arange(60) % 10 == 7)
    c = jnp.arange(60)
    clean, smoothed = (gk.schedule_by_refinement(x)(c) for x in (norms, spiky))
    raw = gk.schedule_by_refinement(spiky, smoothing=0.0)(c)
    assert np.max(np.abs(clean - smoothed)) < 0.1 < np.max(np.abs(clean - raw))


def test_refinement_reads_the_metrics_of_a_run() -> None:
    """A list of dicts, one dict of arrays and the norms are the same log."""
    tx = gk.chain(gk.clip_by_global_norm(1.0), gk.measure(gk.sgd(0.1)))
    loss = lambda p: jnp.sum(jnp.cosh(p))

    def step(carry: Any, _: Any) -> Any:
        p, state = carry
        updates, state = tx.update(jax.grad(loss)(p), state, p)
        return (optax.apply_updates(p, updates), state), gk.metrics(state)

    p = jnp.array([1.0, -2.0])
    _, log = jax.lax.scan(step, (p, tx.init(p)), length=30)
    key = next(k for k in log if k.endswith("gradient_norm"))
    each = [{k: x[t] for k, x in log.items()} for t in range(30)]
    c = jnp.arange(30)
    want, *got = (gk.schedule_by_refinement(x)(c) for x in (log[key], log, each))
    for x in got:
        np.testing.assert_array_equal(x, want)
    assert np.max(want) == 1 and want[-1] == 0 and np.argmax(want) > 15


def test_one_cycle_drives_rate_and_momentum() -> None:
    cycle = gk.schedule_by_one_cycle(0.1, steps=20, cycle=16)
    tx = gk.tune(gk.sgd, **cycle._asdict())
    p = jnp.ones(2)
    state = tx.init(p)
    for _ in range(9):
        _, state = tx.update(p, state, p)
    now = gk.hyperparameters(state)
    np.testing.assert_allclose(now["learning_rate"], 0.1, rtol=1e-6)
    np.testing.assert_allclose(now["momentum"], 0.85, rtol=1e-6)


def test_step_law_chooses_batch_and_steps() -> None:
    """The paper's example, and the means of the authors' bootstrapped fits."""
    law = gk.schedule_by_step_law(1e9, tokens=1e11)
    refit = np.exp(0.5863) * 1e9**-0.7129 * 1e11**0.3075
    assert law.peak == pytest.approx(refit, rel=0.02)
    assert law.batch_tokens == pytest.approx(np.exp(-0.5435) * 1e11**0.5709, rel=0.02)
    assert law.steps == int(1e11 / law.batch_tokens)
    np.testing.assert_allclose(law.learning_rate(law.steps), 1e-5, rtol=1e-3)


def test_cosine_equals_optax_after_the_warm_up() -> None:
    """Which wants a peak that is known, and does not pass strict promotion."""
    with jax.numpy_dtype_promotion("standard"):
        theirs = optax.cosine_decay_schedule(2.0, 9, alpha=0.25)(jnp.arange(12))
    ours = gk.schedule_by_cosine(2.0, steps=12, warmup=3, end=0.5)
    np.testing.assert_allclose(ours(3 + jnp.arange(12)), theirs, rtol=1e-6)


# Combinations


def test_then_joins_as_optax_does() -> None:
    a, b = optax.linear_schedule(0.0, 1.0, 3), optax.linear_schedule(1.0, 0.0, 5)
    c = jnp.arange(12)
    want = optax.join_schedules([a, b], [3])(c)
    np.testing.assert_allclose(gk.then(a, 3, b)(c), want, rtol=1e-6)
    traced = jax.jit(lambda steps: gk.then(a, steps, b)(c))(jnp.int32(3))
    np.testing.assert_allclose(traced, want, rtol=1e-6)
    np.testing.assert_allclose(gk.then(0.5, 0, b)(c), b(c), rtol=1e-6)


def test_times_multiplies() -> None:
    a, b = gk.schedule_by_inverse_root(warmup=3), optax.linear_schedule(1.0, 0.0, 5)
    c = jnp.arange(12)
    np.testing.assert_allclose(gk.times(a, b)(c), a(c) * b(c), rtol=1e-6)
    np.testing.assert_allclose(gk.times(2.0, b)(4), 2 * b(4), rtol=1e-6)


def test_joined_schedules_drive_a_rate() -> None:
    rate = gk.times(gk.then(0.5, 1, gk.schedule_by_linear_decay(1.0, steps=2)), 2.0)
    p, sizes = jnp.ones(1), []
    state = (tx := gk.sgd(rate)).init(p)
    for _ in range(4):
        u, state = tx.update(p, state, p)
        sizes.append(-float(u[0]))
    np.testing.assert_allclose(sizes, [1.0, 2.0, 1.0, 0.0], rtol=1e-6)


def test_a_schedule_is_drawn() -> None:
    axes = Figure().add_subplot()
    gk.plot_schedule(gk.schedule_by_linear_decay(2.0, steps=5), 5, axes)
    gk.plot_schedule(0.5, 5, axes)
    falls, flat = (np.asarray(line.get_ydata()) for line in axes.get_lines())
    np.testing.assert_allclose(falls, [2.0, 1.6, 1.2, 0.8, 0.4], rtol=1e-6)
    np.testing.assert_allclose(flat, np.full(5, 0.5))


# The convex bound


def terms(rates: np.ndarray, norms: np.ndarray, distance: float) -> tuple[float, float]:
    """The term of the distance and the others, sum by sum as the theorem writes them."""
    n = len(rates)
    whole = sum(rates)
    other = sum((rates * norms) ** 2) / (2 * whole)
    for k in range(n - 1):
        squares = sum((rates[k:] * norms[k:]) ** 2)
        other += 0.5 * rates[k] / sum(rates[k + 1 :]) * squares / sum(rates[k:])
    return distance**2 / (2 * whole), other


def test_the_bound_is_that_of_the_theorem() -> None:
    norms = np.linspace(3.0, 1.0, 30)
    schedule = gk.schedule_by_warmup_stable_decay(0.7, steps=30, warmup=4, cooldown=8)
    with jax.enable_x64(True):
        bound = gk.bound_of_schedule(schedule, 30, norms, 2.0)
        rates = np.asarray(schedule(jnp.arange(30)))
    a, b = terms(rates, norms, 2.0)
    want = a + b, np.sqrt(a / b), 2 * np.sqrt(a * b)
    np.testing.assert_allclose(bound, want, rtol=1e-12)


def test_the_factor_is_best_and_rates_of_zero_do_nothing() -> None:
    schedule = gk.schedule_by_linear_decay(0.7, steps=20)
    found = gk.bound_of_schedule(schedule, 20)
    at = lambda x: gk.bound_of_schedule(gk.times(schedule, x * found.factor), 20).loss
    assert at(1.0) == pytest.approx(found.best) and at(1.0) < min(at(0.9), at(1.1))
    longer = gk.bound_of_schedule(schedule, 25)  # zero from update 20 on
    np.testing.assert_allclose(longer, found, rtol=1e-12)
    assert gk.bound_of_schedule(lambda count: 0.0, 5).loss == np.inf


def test_the_bound_prefers_long_cooldowns_and_transfers_over_horizons() -> None:
    def best(cooldown: int, steps: int = 200) -> Any:
        made = gk.schedule_by_warmup_stable_decay(steps=steps, cooldown=cooldown)
        return gk.bound_of_schedule(made, steps)

    losses = [best(n).best for n in (1, 40, 100, 200)]
    assert losses == sorted(losses, reverse=True)
    np.testing.assert_allclose(losses[-1], 2 / np.sqrt(200), rtol=0.02)
    ratio = best(160, 800).factor / best(40).factor
    np.testing.assert_allclose(ratio, 0.5, rtol=0.02)  # as 1 / sqrt(steps)


# Batch sizes


def test_rates_scale_with_the_batch() -> None:
    for make, power in (
        (gk.rate_by_linear_scaling, 1.0),
        (gk.rate_by_sqrt_scaling, 0.5),
    ):
        assert make(0.1, batch_size=96, base=32) == pytest.approx(0.1 * 3**power)
        falls = make(gk.schedule_by_linear_decay(0.1, steps=4), batch_size=96, base=32)
        np.testing.assert_allclose(falls(2), 0.05 * 3**power, rtol=1e-6)
        traced = jax.jit(lambda n, make=make: make(0.1, batch_size=n, base=32))(96)
        np.testing.assert_allclose(traced, 0.1 * 3**power, rtol=1e-6)


@pytest.mark.parametrize("batch_size", [8, 100, 500, 4000])
@pytest.mark.parametrize("examples", [None, 5000])
def test_hessian_noise_scales_as_the_eigenvalue(batch_size: int, examples: Any) -> None:
    """With the paper's numbers: P parameters, noise sigma, top eigenvalue lam."""
    count, sigma, lam = 1e6, 0.02, 1.0  # critical: 400

    def top(size: int) -> float:
        b = size if examples is None else size / (1 - size / examples)
        if lam > np.sqrt(count / b) * sigma:
            return lam + count / b * sigma**2 / lam
        return 2 * np.sqrt(count / b) * sigma

    hyper = dict(base=32, critical=count * sigma**2 / lam**2, examples=examples)
    got = gk.rate_by_hessian_noise(0.3, batch_size=batch_size, **hyper)
    np.testing.assert_allclose(got, 0.3 * top(32) / top(batch_size), rtol=1e-5)


def test_time_transfer_has_the_regimes_of_the_paper() -> None:
    """The best rate, whose peak over batch sizes moves in proportion to the tokens."""

    def best(tokens: float, batch_size: float) -> float:
        critical = 300 * tokens / 2e9
        return 0.7 / (np.sqrt(batch_size / critical) + np.sqrt(critical / batch_size))

    for tokens, size, base in ((8e9, 64, 64), (2e9, 1000, 64), (4e11, 5000, 128)):
        hyper = dict(tokens=tokens, base_tokens=2e9, batch_size=size, base=base)
        made = gk.schedule_by_time_transfer(best(2e9, base), critical=300, **hyper)
        np.testing.assert_allclose(made.learning_rate, best(tokens, size), rtol=1e-5)
        np.testing.assert_allclose(made.critical, 300 * tokens / 2e9, rtol=1e-6)
    falls = gk.schedule_by_linear_decay(0.1, steps=4)
    move = lambda n: gk.schedule_by_time_transfer(falls, tokens=n, critical=1e7)
    np.testing.assert_allclose(move(4e9).learning_rate(2), 0.025, rtol=1e-3)
    traced = jax.jit(lambda n: move(n).factor)(4e9)
    np.testing.assert_allclose(traced, move(4e9).factor, rtol=1e-6)


@pytest.mark.parametrize("part_size", [1, 4])
@pytest.mark.parametrize("eta", [0.05, 0.5, 5.0])
def test_the_norm_test_follows_the_authors_code(eta: float, part_size: int) -> None:
    rng = np.random.default_rng(0)
    gs = {"w": rng.normal(0.2, 1.0, (8, 3, 4)), "b": rng.normal(-0.5, 0.3, (8, 4))}
    variance = sum(np.var(g, axis=0, ddof=1).sum() for g in gs.values())
    square = sum(np.sum(g.mean(axis=0) ** 2) for g in gs.values())
    wanted = int(np.ceil(part_size * variance / (eta**2 * square)))
    want = min(max(wanted, 8 * part_size), 3000)
    grow = gk.grow_batch_by_norm_test(eta, max_batch_size=3000, part_size=part_size)
    given = jax.tree.map(jnp.float32, gs)
    assert int(grow(given)) == int(jax.jit(grow)(given)) == want
    tiny = jax.tree.map(lambda g: jnp.float32(g * 1e-25), gs)
    assert int(grow(tiny)) == want


def test_the_norm_test_of_equal_and_of_opposite_gradients() -> None:
    grow = gk.grow_batch_by_norm_test(max_batch_size=64)
    assert int(grow(jnp.zeros((3, 2)))) == int(grow(jnp.ones((3, 2)))) == 3
    assert int(grow(jnp.array([[1.0], [-1.0]]))) == 64
    assert int(grow(jnp.ones((100, 2)))) == 100


@pytest.mark.parametrize("part_size", [1, 4])
@pytest.mark.parametrize("eta", [0.3, 1.0, 20.0])
def test_the_coordinate_wise_test_asks_for_the_worst_entry(
    eta: float, part_size: int
) -> None:
    rng = np.random.default_rng(1)
    gs = {"w": rng.normal(1.0, 1.0, (8, 3, 4)), "b": rng.normal(-1e-9, 3e-10, (8, 4))}
    asked = [np.var(g, axis=0, ddof=1) / g.mean(axis=0) ** 2 for g in gs.values()]
    wanted = part_size * max(float(np.max(x)) for x in asked) / eta**2
    want = min(max(int(np.ceil(wanted)), 8 * part_size), 3000)
    hyper = dict(max_batch_size=3000, part_size=part_size)
    grow = gk.grow_batch_by_coordinate_norm_test(eta, **hyper)
    given = jax.tree.map(jnp.float32, gs)
    assert int(grow(given)) == int(jax.jit(grow)(given)) == want
    assert want >= int(gk.grow_batch_by_norm_test(eta, **hyper)(given))
    huge = jax.tree.map(lambda g: jnp.float32(g * 1e30), gs)
    assert int(grow(huge)) == want


def test_the_coordinate_wise_test_of_entries_of_mean_zero() -> None:
    grow = gk.grow_batch_by_coordinate_norm_test(max_batch_size=64)
    assert int(grow(jnp.zeros((3, 2)))) == int(grow(jnp.ones((3, 2)))) == 3
    assert int(grow(jnp.array([[1.0, 5.0], [-1.0, 5.0]]))) == 64
    assert int(grow({"a": jnp.ones((100, 2)), "b": jnp.ones((100, 0))})) == 100


# The range test


def bowl(p: jax.Array, batch: jax.Array) -> jax.Array:
    """Gradient descent on it is stable below a rate of 1."""
    return jnp.mean((p - batch) ** 2) * p.size


def batches(n: int = 80) -> jax.Array:
    return 0.1 * jax.random.normal(jax.random.key(0), (n, 4))


def test_the_range_ends_where_the_loss_rises() -> None:
    p = jnp.ones(4)
    found = gk.find_learning_rate(bowl, gk.sgd, p, batches(), 1e-4, 1e2)
    assert found.ended.startswith("the loss rose above four times the first")
    limit = 4 * found.losses[0]  # of the losses before the end, none is above it
    assert np.max(found.losses) <= limit and len(found.losses) > 40
    n = len(found.losses)
    near = [found.losses[max(t - n // 20, 0) : t + n // 20 + 1] for t in range(n)]
    lowest = int(np.argmin([np.median(x) for x in near]))
    np.testing.assert_allclose(found.largest, found.rates[lowest], rtol=0.2)
    assert 0.05 < found.largest < 1 and found.suggestion == found.largest / 10
    assert f"at a rate of {np.geomspace(1e-4, 1e2, 80)[n]:.3g}" in found.ended
    np.testing.assert_allclose(
        found.rates, np.geomspace(1e-4, 1e2, 80)[: len(found[0])]
    )
    q = p
    for rate, batch, loss in zip(found.rates[:9], batches(), found.losses):
        value, g = jax.value_and_grad(bowl)(q, batch)
        np.testing.assert_allclose(loss, value, rtol=1e-5)
        q = q - rate * g
    axes = Figure().add_subplot()
    found.plot(axes)
    assert axes.get_xscale() == "log" and len(axes.get_lines()) == 4
    assert axes.get_title() == found.ended and found.ended in str(found)


@pytest.mark.parametrize("first,last,over", [(1.0, 3.9, 4.1), (-1.0, 1.9, 2.1)])
def test_the_range_ends_at_four_times_the_first(
    first: float, last: float, over: float
) -> None:
    given = jnp.array([first, *[last] * 9, over, first, first])
    loss = lambda p, batch: batch + 0.0 * jnp.sum(p)
    found = gk.find_learning_rate(loss, gk.sgd, jnp.ones(2), given)
    np.testing.assert_allclose(found.losses, given[:10])
    assert found.ended.startswith("the loss rose") and found.largest == found.rates[0]


def test_a_loss_that_is_nan_ends_the_range_and_is_named() -> None:
    broken = lambda p, batch: jnp.where(jnp.sum(p) < 3, jnp.nan, bowl(p, batch))
    with jax.debug_nans(False):
        found = gk.find_learning_rate(broken, gk.adamw, jnp.ones(4), batches())
    assert found.ended.startswith("the loss was nan at a rate of")
    assert np.all(np.isfinite(found.losses)) and len(found.losses) < 80
    text = message(
        lambda: gk.find_learning_rate(broken, gk.sgd, jnp.zeros(4), batches())
    )
    assert text.startswith("gradkit.find_learning_rate: the first loss must be finite")


def test_a_range_that_ends_too_early_says_so() -> None:
    found = gk.find_learning_rate(bowl, gk.sgd, jnp.ones(4), batches(), 1e-6, 1e-3)
    assert found.ended == "the loss did not break, raise high"
    assert len(found.losses) == 80


# What is refused

P = jnp.ones(4)
REFUSED = {
    "norms must be one number for each of two updates": lambda: (
        gk.schedule_by_refinement([])
    ),
    "norms must be finite and at least 0, got nan at update 1": lambda: (
        gk.schedule_by_refinement([1.0, np.nan, 1.0])
    ),
    "norms must be finite and at least 0, got -1.0 at update 2": lambda: (
        gk.schedule_by_refinement([1.0, 1.0, -1.0])
    ),
    "norms must be above 0": lambda: gk.schedule_by_refinement(
        [1.0, 0.0, 1.0], smoothing=0.0
    ),
    "norms must have one gradient_norm an update, got none": lambda: (
        gk.schedule_by_refinement([{"loss": 1.0}])
    ),
    "power must be above 0 and at most 2, got 3.0": lambda: gk.schedule_by_refinement(
        [1.0, 2.0], power=3.0
    ),
    "cycle must be below steps = 9, got 9": lambda: gk.schedule_by_one_cycle(
        steps=9, cycle=9
    ),
    "warmup must be a whole number of at least 1, got 0": lambda: (
        gk.schedule_by_inverse_root(warmup=0)
    ),
    "warmup + cooldown must be at most steps = 4, got 5": lambda: (
        gk.schedule_by_sqrt_cooldown(steps=4, warmup=3, cooldown=2)
    ),
    "steps must be a whole number of at least 1, got 0": lambda: (
        gk.schedule_by_sqrt_cooldown(steps=0)
    ),
    "warmup must be below the 55 steps of the run": lambda: gk.schedule_by_step_law(
        1e6, tokens=1e4 / 3
    ),
    "steps must be at least 0, got -1": lambda: gk.then(1.0, -1, 1.0),
    "first must be above -inf, got nan": lambda: gk.times(float("nan"), 1.0),
    "second must be one number or a schedule, got None": lambda: gk.times(1.0, None),
    "schedule, a schedule, must take": lambda: gk.plot_schedule(lambda: 1.0, 5, None),
    "schedule must be finite and at least 0, got -1.0 at update 0": lambda: (
        gk.bound_of_schedule(lambda count: -1.0, 3)
    ),
    "norms must be one number, or 3, got (2,)": lambda: gk.bound_of_schedule(
        lambda count: 1.0, 3, [1.0, 1.0]
    ),
    "batch_size must be below examples = 10": lambda: gk.rate_by_hessian_noise(
        batch_size=20, examples=10
    ),
    "leaf b must have an axis of 3 parts first, got 2": lambda: (
        gk.grow_batch_by_norm_test()({"a": jnp.ones((3, 1)), "b": jnp.ones((2, 1))})
    ),
    "leaf w must have an axis of 2 parts first, got 0": lambda: (
        gk.grow_batch_by_coordinate_norm_test()({"w": jnp.float32(1.0)})
    ),
    "tokens must be above 0, got 0.0": lambda: gk.schedule_by_time_transfer(tokens=0.0),
    "high must be above low = 1.0, got 0.1": lambda: gk.find_learning_rate(
        bowl, gk.sgd, P, batches(), 1.0, 0.1
    ),
    "data must have one axis of ten batches or more first, got [9]": lambda: (
        gk.find_learning_rate(bowl, gk.sgd, P, batches(9))
    ),
    "loss must return one number, got (4,)": lambda: gk.find_learning_rate(
        lambda p, b: p - b, gk.sgd, P, batches()
    ),
    "what tx returns must be a transform": lambda: gk.find_learning_rate(
        bowl, lambda rate: gk.sgd, P, batches()
    ),
    "tx must be a function of a learning rate, such as gk.sgd, got a t": lambda: (
        gk.find_learning_rate(bowl, gk.sgd(0.1), P, batches())
    ),
    "leaf f of params must be a real floating array, got Pjit": lambda: (
        gk.find_learning_rate(bowl, gk.sgd, {"f": jnp.tanh, "w": P}, batches())
    ),
    "loss must be a function of params, batch, got": lambda: gk.find_learning_rate(
        lambda p: 1.0, gk.sgd, P, batches()
    ),
    "got a StepLaw. Pass its .learning_rate": lambda: gk.sgd(gk.schedule_by_step_law()),
    "got a OneCycle. Pass its .momentum": lambda: gk.sgd(
        0.1, momentum=gk.schedule_by_one_cycle()
    ),
    "first must be one number or a schedule, got a StepLaw. Pass its .l": lambda: (
        gk.times(gk.schedule_by_step_law(), 2.0)
    ),
    "schedule must be one number or a schedule, got a TimeTransfer. Pass its .l": (
        lambda: gk.plot_schedule(gk.schedule_by_time_transfer(1.0), 5, None)
    ),
    "schedule must be one number or a schedule, got a OneCycle. Pass its .l": lambda: (
        gk.bound_of_schedule(gk.schedule_by_one_cycle(), 5)
    ),
    "warmup must be known before tracing": lambda: jax.jit(
        lambda w: gk.schedule_by_cosine(1.0, steps=9, warmup=w)(0)
    )(2),
    "schedule must be of known numbers, got traced ones": lambda: jax.jit(
        lambda x: gk.bound_of_schedule(gk.schedule_by_linear_decay(x), 5)
    )(1.0),
    "two updates or more, got a MeasureState": lambda: gk.schedule_by_refinement(
        gk.measure(gk.sgd(0.1)).init(P)
    ),
    "two updates or more, got a list of something else": lambda: (
        gk.schedule_by_refinement([{"gradient_norm": 1.0}, 1.0])
    ),
    "two updates or more, got a generator": lambda: gk.schedule_by_refinement(
        1.0 for _ in range(3)
    ),
    "two updates or more, got a str": lambda: gk.schedule_by_refinement("norms"),
    "steps must be below 2**31": lambda: gk.schedule_by_linear_decay(steps=2**33),
    "max_batch_size must be below 2**31": lambda: gk.grow_batch_by_norm_test(
        max_batch_size=2**40
    ),
    "tokens must be above 0 and below inf, got inf": lambda: gk.schedule_by_step_law(
        1e9, tokens=np.inf
    ),
}


@pytest.mark.parametrize("said", REFUSED)
def test_what_does_not_fit_is_named(said: str) -> None:
    text = message(REFUSED[said])
    assert text.startswith("gradkit.") and said in text and text.endswith("."), text


# Ends, large counts, whole ratios


@pytest.mark.parametrize("count", [int, np.int64, jnp.int32])
def test_the_last_updates_of_a_long_run_are_told_apart(count: Any) -> None:
    """Of 1e8 updates, which float32 counts in eights."""
    steps = 10**8
    last = {
        gk.schedule_by_linear_decay: ({}, 1e-8),
        gk.schedule_by_warmup_stable_decay: ({"cooldown": 100}, 1e-2),
        gk.schedule_by_sqrt_cooldown: ({"cooldown": 100}, 1 - 0.99**0.5),
    }
    for make, (others, want) in last.items():
        schedule = make(1.0, steps=steps, **others)
        for f in (schedule, jax.jit(schedule)):
            np.testing.assert_allclose(f(count(steps - 1)), want, rtol=1e-4)
            assert f(count(-3)) == schedule(-3.0) and f(count(LAST)) == 0


def test_no_schedule_rises_that_is_said_to_fall() -> None:
    law = gk.schedule_by_step_law(1e15, tokens=1e9)
    rates = law.learning_rate(jnp.array([1999, law.steps // 2, law.steps]))
    np.testing.assert_allclose(rates, law.peak, rtol=1e-6)
    assert law.peak < 1e-5


def test_a_half_life_begins_at_its_start() -> None:
    decay = gk.schedule_by_half_life(0.5, end=0.9, steps=4)
    np.testing.assert_allclose(decay(jnp.array([-100, -1])), 0.5, rtol=1e-6)


@pytest.mark.parametrize("ratio", [25, 40])
def test_a_batch_that_is_a_whole_number_is_not_rounded_up(ratio: int) -> None:
    """The variance of two parts is the half of their squared distance."""
    half = (ratio / 2) ** 0.5 * 0.1
    gs = jnp.array([[1 - half], [1 + half]], jnp.float32)
    for make in (gk.grow_batch_by_norm_test, gk.grow_batch_by_coordinate_norm_test):
        grow = make(0.1)
        assert int(grow(gs)) == int(jax.jit(grow)(gs)) == ratio


def test_a_range_that_breaks_at_once_suggests_nothing() -> None:
    found = gk.find_learning_rate(bowl, gk.sgd, P, batches(), 1e2, 1e4)
    assert len(found.losses) == 1 and found.largest == found.rates[0]
    assert np.isnan(found.suggestion) and found.ended.endswith(", lower low")
