"""What papers say that their methods do, each in an experiment that is small and can fail.

The experiments are in gradkit/_lab/claims; benchmarks/choose.py runs them at more settings.
"""

import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit._lab.claims import (
    grokking,
    heavy_tails,
    memorizing,
    pruning,
    rotation,
    spikes,
)
from gradkit._lab.claims.run import descend, product

SEEDS = np.arange(3)
STEP = gk.step_by_learning_rate


def adam(rate: Any, *before: Any) -> optax.GradientTransformation:
    return gk.chain(*before, gk.scale_by_adam(), STEP(rate))


def heavy_ball(rate: Any) -> optax.GradientTransformation:
    return gk.chain(gk.average_by_heavy_ball(0.9), STEP(rate))


def tangent(inner: Any, rate: Any) -> optax.GradientTransformation:
    return gk.chain(gk.normalize_by_tangent(inner), STEP(rate))


@functools.cache
def learned(orthogonal: bool) -> Any:
    before = [gk.normalize_by_orthograd()] if orthogonal else []
    return product(lambda s: grokking.learn(adam(0.01, *before), s, 180), SEEDS)


@pytest.mark.xdist_group("learned")
def test_orthogonal_gradients_understand_what_adam_memorizes():
    """arXiv:2501.04697, Section 5: without weight decay, Adam does not generalize on modular
    addition, and does so at once on gradients orthogonal to the weights."""
    for run in (learned(False), learned(True)):
        assert np.all(run.memorized == 1)
    assert np.all(learned(False).understood < 0.05)
    assert np.all(learned(True).understood > 0.5)


@pytest.mark.slow
@pytest.mark.xdist_group("learned")
def test_what_adam_lowers_after_memorizing_is_the_scale_of_the_logits():
    """arXiv:2501.04697, Section 4: minus the gradient aligns with the weights, which grow."""
    plain, orthogonal = learned(False), learned(True)
    assert np.all(plain.naive > 0.3)
    assert np.all(plain.growth > 1.3 * orthogonal.growth)


def test_softmax_collapse_stops_learning():
    """arXiv:2501.04697, Section 3: training pairs end with a float32 loss of exactly 0, so
    that they have no gradient; orthogonal gradients keep all of theirs."""
    sharp = gk.scale_by_adam(b2=0.99, eps=1e-25)

    def collapsed(*before: Any) -> Any:
        tx = gk.chain(*before, sharp, STEP(0.03))
        return jax.jit(functools.partial(grokking.learn, tx, steps=300))(0).collapsed

    assert collapsed() > 0.3
    assert collapsed(gk.normalize_by_orthograd()) == 0


LIMITS = [0.1, 0.4, 1.6, 6.0, 25.0, 100.0]
DECAYS = [0.9, 0.97, 0.99, 0.999]


def average(decay: Any) -> optax.GradientTransformation:
    """An average of the gradients alone."""
    return gk.average_by_ademamix(decay, alpha=0.0)


def estimation(make: Callable[..., Any], *grids: Any) -> float:
    """The error at the best setting, over seeds."""
    error = lambda *given: heavy_tails.estimate(make(*given[:-1]), given[-1], 500, 10.0)
    return float(np.mean(product(error, *grids, np.arange(5)), axis=-1).min())


def test_the_median_can_be_tracked_where_the_mean_cannot():
    """arXiv:2402.12828, Section 4: under noise without a variance, differences clipped to a
    ball track a steady gradient that averages miss. Averaging behind both, it is also nearer
    than gradients clipped to a ball around zero."""
    median = estimation(gk.clip_by_median, LIMITS)
    assert median < 0.5 * estimation(average, DECAYS)
    averaged, clipped = (
        estimation(lambda c, b, f=f: gk.chain(f(c), average(b)), LIMITS, DECAYS)
        for f in (gk.clip_by_median, gk.clip_by_global_norm)
    )
    assert averaged < 0.75 * clipped


def test_descent_along_the_median_survives_what_momentum_does_not():
    """arXiv:2402.12828, Section 5. Plain clipping, tuned, ends as near here: see
    docs/how_to_choose.md."""

    def ends(make: Callable[..., Any]) -> float:
        loss = lambda rate, seed: heavy_tails.minimize(
            gk.chain(make(), STEP(gk.schedule_by_linear_decay(rate, steps=500))),
            seed,
            500,
        )
        return float(np.mean(product(loss, RATES, np.arange(5)), axis=-1).min())

    median = ends(lambda: gk.clip_by_median(0.3))
    assert median < 0.25 * ends(lambda: average(0.9))


RATES = [0.004, 0.015, 0.06, 0.25]


def squares(turning: rotation.Turning) -> tuple[Any, Any]:
    """By how much the squared norm grew, and the sum of the squared steps."""
    grown = turning.norm[..., -1] ** 2 - turning.norm[..., 0] ** 2
    return grown, jnp.sum(turning.moved[..., 1:] ** 2, axis=-1)


def test_tangent_momentum_lengthens_weights_by_its_steps_alone():
    """arXiv:2006.08217, Lemma 2.2 and Proposition 3.1: the squared norm of scale-invariant
    weights grows by the squared steps, and with momentum by much more."""
    ball = gk.average_by_heavy_ball(0.9)
    runs = lambda make: product(
        lambda rate, s: rotation.turn(make(rate), s, 300), [0.1, 0.3], SEEDS
    )
    grown, steps = squares(runs(lambda rate: tangent(ball, rate)))
    np.testing.assert_allclose(grown, steps, rtol=1e-3)
    grown, steps = squares(runs(heavy_ball))
    assert np.all(grown > 5 * steps)


@pytest.mark.slow
def test_adamp_does_not_slow_down():
    """arXiv:2006.08217, Figures 1 and 3: under Adam scale-invariant weights grow and their
    effective step falls; AdamP's stays larger and, where the rate falls, ends lower."""
    adamp = lambda rate: tangent(gk.scale_by_adam(), rate)
    falls = lambda rate: gk.schedule_by_linear_decay(rate, steps=500)
    plain, projected = (
        product(lambda r, s, m=make: rotation.turn(m(r), s, 500), [0.3], SEEDS)
        for make in (adam, adamp)
    )
    growth = [x.norm[..., -1] / x.norm[..., 0] for x in (plain, projected)]
    angle = [(x.moved / x.norm)[..., -50:].mean(axis=-1) for x in (plain, projected)]
    assert np.all(growth[0] > 2 * growth[1])
    assert np.all(angle[1] > 1.5 * angle[0])

    def best(make: Callable[..., Any]) -> float:
        end = lambda r, s: rotation.end(rotation.turn(make(falls(r)), s, 500))
        return float(product(end, [0.1, 0.3, 1.0, 3.0], np.arange(6)).mean(1).min())

    assert best(adamp) < 0.8 * best(adam)


@pytest.mark.parametrize(
    "make,rates",
    [
        (heavy_ball, [0.04, 0.64]),
        pytest.param(adam, [0.02, 0.32], marks=pytest.mark.slow),
    ],
)
@pytest.mark.xdist_group("spikes")
def test_decoupled_decay_is_tuned_once_for_all_rates(make: Any, rates: list[float]):
    """arXiv:1711.05101, Section 4, Figures 1 and 2: decay in the gradient does something else
    at another rate, and one for both is worse than one for each; decoupled, as a share of the
    weights, it does the same, and is not."""
    decays = [4.0**-k for k in range(2, 8)]

    def coupled(rate: Any, decay: Any, seed: Any) -> Any:
        return rotation.end(rotation.turn(make(rate), seed, 500, decay))

    def decoupled(rate: Any, decay: Any, seed: Any) -> Any:
        tx = gk.chain(make(rate), gk.decay_by_weight(decay))
        return rotation.end(rotation.turn(tx, seed, 500))

    def compare(run: Any) -> tuple[float, float]:
        """The factor between rates at the larger decays, and that lost by one decay for both."""
        error = np.log(np.asarray(product(run, rates, decays, SEEDS)).mean(-1))
        between = np.abs(error[1] - error[0])[:3].mean()
        lost = error.mean(axis=0).min() - error.min(axis=1).mean()
        return float(np.exp(between)), float(np.exp(lost))

    between, lost = compare(coupled)
    assert between > 2.5 and lost > 1.15
    between, lost = compare(decoupled)
    assert between < 1.4 and lost < 1.1


GUARDS: dict[str, Callable[[], list[Any]]] = {
    "none": lambda: [],
    "clip_by_ema_norm": lambda: [gk.clip_by_ema_norm()],
    "clip_by_zscore": lambda: [gk.clip_by_zscore()],
    "clip_by_percentile": lambda: [gk.clip_by_percentile()],
    "scale_by_gradient_norm": lambda: [gk.scale_by_gradient_norm()],
    "stable": lambda: [gk.clip_by_spike(), gk.scale_by_gradient_norm()],
}
SPIKES = {
    "never": (),
    "once": (150,),
    "early": (0, 4, 9, 14),
    "often": tuple(range(60, 400, 50)),
}


@functools.cache
def harm(name: str) -> dict[str, np.ndarray]:
    """How many times as large spikes make the final loss of Adam behind a method."""
    tx = adam(gk.schedule_by_linear_decay(0.03, steps=400), *GUARDS[name]())
    run = lambda sizes, seed: spikes.regress(tx, seed, sizes)
    sizes = np.stack([spikes.spiky(400, at) for at in SPIKES.values()])
    ends = np.asarray(product(run, sizes, SEEDS))[..., -20:].mean(axis=-1)
    return dict(zip(SPIKES, ends / ends[0]))


@pytest.mark.parametrize(
    "name", ["clip_by_ema_norm", "clip_by_zscore", "clip_by_percentile"]
)
@pytest.mark.parametrize("at", ["once", "often"])
@pytest.mark.xdist_group("spikes")  # which share what was trained
def test_a_relative_clip_undoes_spikes(name: str, at: str):
    """ZClip (arXiv:2504.02507, Section 3) and AdaGC (arXiv:2502.11034, Section 3): a gradient a
    thousand times too large, which sets Adam back for good, leaves no trace."""
    assert np.all(harm("none")[at] > 2)
    assert np.all(harm(name)[at] < 1.25)


@pytest.mark.parametrize("name", ["clip_by_ema_norm", "scale_by_gradient_norm"])
@pytest.mark.xdist_group("spikes")
def test_spikes_at_the_start_need_an_absolute_bound(name: str):
    """AdaGC (arXiv:2502.11034, Section 3.2) warms up under a global bound; a clip that learns
    what is usual from the spikes themselves, as ZClip's does, comes too late."""
    assert np.all(harm(name)["early"] < 2)
    assert np.all(harm("clip_by_zscore")["early"] > 3)


@pytest.mark.xdist_group("spikes")
def test_stable_spam_bears_repeated_spikes():
    """arXiv:2502.17055, Section 3: clipped entries and normalized norms together."""
    assert np.all(harm("stable")["often"] < 3)
    assert np.all(harm("none")["often"] > 4)


@pytest.mark.slow
def test_fixed_norms_keep_the_loss_from_vanishing_while_it_is_learned():
    """LAWN (arXiv:2108.05839, Sections 1 and 3): weights of a memorizing network grow, logits
    with them, and held-out loss gets worse; at fixed norms it does not, at any rate."""

    def run(*last: Any) -> memorizing.Memory:
        make = lambda r: gk.chain(gk.scale_by_adam(), STEP(r), *last)
        f = lambda r, s: memorizing.memorize(make(r), s, 300)
        return product(f, [0.003, 0.03], SEEDS)

    free, fixed = run(), run(gk.retract_by_fixed_norm())
    np.testing.assert_allclose(fixed.growth, 1, rtol=1e-3)
    assert np.all(free.growth > 1.3)
    assert np.all(fixed.trained < 0.4) and np.all(fixed.trained > 0.05)
    assert np.all(free.held_out[1] > 1.5 * fixed.held_out[1])
    assert np.all(fixed.held_out[1] < 1.2 * fixed.held_out[0])
    assert np.all(fixed.accuracy > free.accuracy - 0.05)


def test_norm_loss_draws_every_unit_to_norm_one():
    """arXiv:2103.06583, Section 3: whatever the rate, the sphere is where weights end."""
    f = lambda rate, s: rotation.turn(
        gk.chain(adam(rate), gk.decay_by_unit_norm(0.05)), s, 300
    )
    norm = product(f, [0.003, 0.03], SEEDS).norm
    assert np.all(norm[..., 0] > 3 * rotation.UNITS**0.5)
    np.testing.assert_allclose(norm[..., -1], rotation.UNITS**0.5, rtol=0.05)


def test_half_space_steps_find_the_groups_that_proximal_steps_do_not():
    """HSPG (arXiv:2107.07467, Section 3.2): under noisy gradients all groups that do not
    matter, at no loss; the proximal steps of the same penalty leave them small."""

    def run(shrink: Callable[[Any], Any]) -> pruning.Pruned:
        make = lambda c: gk.chain(STEP(0.03), shrink(0.03 * c))
        f = lambda c, s: pruning.prune(make(c), s, 400)
        return product(f, [0.03, 0.1], SEEDS)

    lasso = run(lambda c: gk.shrink_by_group_lasso(c, axes=(-2,)))
    half = run(lambda c: gk.shrink_by_half_space(c, eps=0.9, warmup=200, axes=(-2,)))
    assert np.all(lasso.found < 0.1)
    assert np.all(half.found > 0.95) and np.all(half.lost == 0)
    assert np.all(half.error < 0.8 * lasso.error)


def test_experiments_are_of_the_gradient_they_say():
    """A step of gradient descent of rate 1 is minus the gradient."""
    p, seen = descend(
        optax.sgd(1.0), lambda p, x: x, 5.0, jnp.arange(3.0), lambda p, u: u
    )
    assert p == 2.0
    np.testing.assert_array_equal(seen, [0.0, -1.0, -2.0])
    table = jax.jit(lambda a, b: 10 * a + b)
    np.testing.assert_array_equal(product(table, [1, 2], [3, 4]), [[13, 14], [23, 24]])


def test_names_in_the_guide_exist():
    guide = pathlib.Path(__file__).parents[1] / "docs" / "how_to_choose.md"
    names = re.findall(r"`(\w+_by_\w+)`", guide.read_text())
    assert len(names) > 10
    for name in names:
        assert hasattr(gk, name), name
