"""The best rate is found off the grid, its shift is measured, and nothing is hidden."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradkit as gk
from gradkit._core.measure import fit
from gradkit._core.measure.sweep_result import SweepResult

RATES = tuple(2.0 ** np.arange(-6, 1))


def bowl(n: int, scale: float = 1.0, noise: float = 0.0) -> gk.Experiment:
    """A parabola that SGD leaves in one step at the rate `0.5 / scale`."""
    return gk.Experiment(
        lambda key: jnp.ones(n) + noise * jax.random.normal(key, (n,)),
        lambda w, x: scale * jnp.mean(w**2),
        lambda rate: gk.sgd(n * rate),
        lambda key: jnp.zeros(()),
    )


def parabolas(*minima: float, seeds: int = 4) -> SweepResult:
    """Losses that are lowest at these powers of 2."""
    x, noise = np.log2(RATES), np.random.default_rng(0).normal(size=seeds) * 0.2
    return SweepResult(
        RATES, {8 * 2**i: (x[:, None] - m - noise) ** 2 for i, m in enumerate(minima)}
    )


def test_the_parabola_is_exact_on_parabolas():
    x = np.arange(-5.0, 3.0)
    assert fit.lowest(x, 3 * (x + 1.3) ** 2 + 2) == pytest.approx(-1.3)
    assert fit.lowest(x, x) == -5.0  # at the edge
    assert fit.lowest(x, np.where(x > -2, np.inf, -x)) == -2.0  # at a cliff
    assert np.isnan(fit.lowest(x, np.full(8, np.nan)))


def test_shifts_and_intervals():
    found = parabolas(-3.0, -2.25)
    first, second = found.optima().values()
    assert first.log2_rate.low < first.log2_rate.value < first.log2_rate.high
    assert second.shift.value == pytest.approx(0.75)
    assert second.shift.high - second.shift.low < 1e-6  # the same seeds are drawn
    assert found.shift == pytest.approx(0.75)
    assert found.ok(0.8) and not found.ok(0.7)


def test_an_optimum_at_the_edge_is_said():
    found = parabolas(-3.0, 4.0)
    assert [best.at_edge for best in found.optima().values()] == [False, True]
    assert "best at the edge of the grid" in found.table().splitlines()[2]
    assert not found.ok(100)


@pytest.mark.parametrize("seeds", [1, 4])
def test_noise_of_the_first_batch_is_no_divergence(seeds: int):
    def noisy(n: int) -> gk.Experiment:
        return bowl(n)._replace(
            loss=lambda w, x: jnp.mean(w**2) + x,
            batch=lambda key: 3 * jax.random.normal(key),
        )

    rates = [0.125, 0.25, 0.5, 0.75, 0.875]
    found = gk.sweep_transfer(noisy, [1, 4], rates, steps=20, seeds=seeds)
    assert all(np.isfinite(x).all() for x in found.losses.values())
    assert str(found) == found.table()


def test_diverged_runs_are_counted_and_never_best():
    found = parabolas(-3.0)
    found.losses[8][4:, 1] = np.nan
    (best,) = found.optima().values()
    assert best.diverged == 3 and best.log2_rate.value < -2
    assert "3 of 28 runs diverged" in found.table()


def test_a_sweep_finds_a_known_optimum():
    """On a curvature that doubles, the best rate halves."""
    make = lambda n: bowl(4, scale=n)
    found = gk.sweep_transfer(make, [2, 4], RATES[:-1], steps=2, seeds=2)
    assert found.losses[2].shape == (6, 2)
    assert found.shift == pytest.approx(1.0, abs=1e-5)
    assert all(not best.at_edge for best in found.optima().values())


def test_the_loss_is_the_mean_of_the_last_tenth():
    found = gk.sweep_transfer(bowl, [2], (0.01, 0.02, 0.04), steps=20, seeds=1)
    for rate, loss in zip(found.rates, found.losses[2][:, 0]):
        want = np.mean([(1 - 2 * rate) ** (2 * k) for k in (18, 19)])
        assert loss == pytest.approx(want, rel=1e-5)


def test_a_sweep_calls_what_rises_diverged():
    found = gk.sweep_transfer(lambda n: bowl(n, 8.0), [2], RATES, steps=9, seeds=2)
    assert np.isnan(found.losses[2][-1]).all()
    assert np.isfinite(found.losses[2][:4]).all()


def test_rates_and_seeds_are_one_program_and_each_a_run_of_its_own():
    model = bowl(3, noise=0.5)
    found = gk.sweep_transfer(lambda n: model, [3], RATES[:3], steps=3, seeds=2)
    for seed in range(2):
        for_params, _ = jax.random.split(jax.random.key(seed))
        for i, rate in enumerate(RATES[:3]):
            w, tx = model.init(for_params), model.tx(rate)
            state = tx.init(w)
            for _ in range(2):
                updates, state = tx.update(jax.grad(model.loss)(w, 0.0), state, w)
                w = gk.apply_updates(w, updates)
            assert found.losses[3][i, seed] == pytest.approx(float(model.loss(w, 0.0)))


@pytest.mark.parametrize("rates", [[0.1, 0.2], [0.2, 0.1, 0.4], [0.0, 0.1, 0.2]])
def test_rates_must_rise(rates):
    with pytest.raises(
        ValueError, match="rates must be three or more, above 0 and ris"
    ):
        gk.sweep_transfer(bowl, [1], rates)


@pytest.mark.parametrize(
    "make,sizes,said",
    [
        (bowl, [], "sizes must be one size or more, all different, got []"),
        (bowl, [4, 4], "sizes must be one size or more, all different, got [4, 4]"),
        (lambda n: None, [4], "make must return a gk.Experiment, got NoneType"),
        (lambda n: bowl(n)._replace(tx=gk.sgd(0.1)), [4], "tx must be a function of"),
    ],
)
def test_sizes_and_what_makes_their_models_are_checked(make, sizes, said):
    with pytest.raises((ValueError, TypeError)) as caught:
        gk.sweep_transfer(make, sizes, [0.1, 0.2, 0.4], steps=2)
    assert str(caught.value).startswith(f"gradkit.sweep_transfer: {said}")
