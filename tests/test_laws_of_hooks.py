"""What is promised by what stands around a step: floors, brakes, spheres, decays, resets."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entry import Golden
from test_golden import worst_error

import gradkit as gk

Tree = dict[str, Any]
SHAPES = {"kernel": (6, 4), "conv": (2, 3, 4), "wide": (3, 5), "none": (0, 3)}
ODD = SHAPES | {"bias": (4,), "scale": ()}
SLACK = 1e-5


def draw(seed: int, scale: float = 1.0, shapes: Any = SHAPES) -> Tree:
    rng = np.random.default_rng(seed)
    return {
        k: jnp.asarray(scale * rng.normal(size=s), jnp.float32)
        for k, s in shapes.items()
    }


def once(tx: Any, u: Tree, p: Tree) -> Tree:
    """The first update that `tx` makes of `u`."""
    tx = optax.with_extra_args_support(tx)
    return jax.jit(tx.update)(u, tx.init(p), p)[0]


def walk(tx: Any, steps: int, scale: float = 1.0) -> list[Tree]:
    """The parameters before and after every update, under random gradients."""
    update, p = jax.jit(tx.update), draw(0)
    state, seen = tx.init(p), [p]
    for t in range(steps):
        u, state = update(draw(1 + t, scale), state, p)
        p = optax.apply_updates(p, u)
        seen.append(p)
    return seen


def norm(x: Any, axis: Any = None) -> Any:
    return np.sqrt(np.sum(np.asarray(x, np.float64) ** 2, axis))


def units(x: Any) -> Any:
    """The norms of the output units, all axes but the last inside a unit."""
    return norm(x, tuple(range(x.ndim - 1)))


def along(x: Any, y: Any) -> float:
    """The cosine of the angle between two leaves."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return float(np.sum(x * y) / (norm(x) * norm(y)))


def assert_same(got: Any, want: Any, rtol: float = SLACK, atol: float = 0.0) -> None:
    close = functools.partial(np.testing.assert_allclose, rtol=rtol, atol=atol)
    jax.tree.map(close, got, want)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
def test_norms_grow_by_no_more_than_they_may(scale: float) -> None:
    tx, last = gk.clip_by_norm_growth(1.5), None
    state = tx.init(draw(0))
    for t in range(8):
        g = draw(t, scale * (10 if t % 3 == 2 else 1 / (1 + t)))
        u, state = jax.jit(tx.update)(g, state)
        for k in [k for k in g if g[k].size]:
            assert along(u[k], g[k]) > 1 - SLACK  # nothing turns
            assert norm(u[k]) <= norm(g[k]) * (1 + SLACK)
            if last is not None:
                bound = 1.5 * norm(last[k])
                assert norm(u[k]) <= bound * (1 + SLACK)
                assert norm(u[k]) >= min(bound, norm(g[k])) * (1 - SLACK)
        last = u


def test_norms_grow_again_after_a_gradient_of_zero() -> None:
    tx = gk.clip_by_norm_growth(2.0)
    state = tx.init(jnp.zeros(3))
    for g, want in [(4.0, 4.0), (0.0, 0.0), (jnp.nan, 0.0), (100.0, 8.0)]:
        u, state = tx.update(jnp.full(3, g), state)
        np.testing.assert_allclose(u, jnp.full(3, want))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
def test_trusted_directions_are_as_long_as_their_weights(scale: float) -> None:
    p, d = draw(0, shapes=ODD), draw(1, scale, ODD)
    u = once(gk.normalize_by_trust_ratio(), d, p)
    for k in [k for k in p if p[k].size]:
        np.testing.assert_allclose(norm(u[k]), norm(p[k]), rtol=SLACK)
        assert along(u[k], d[k]) > 1 - SLACK


def test_directions_of_zero_weights_pass() -> None:
    p, d = draw(0), draw(1)
    zero = jax.tree.map(jnp.zeros_like, p)
    assert_same(once(gk.normalize_by_trust_ratio(), d, zero), d, rtol=0)
    assert_same(once(gk.normalize_by_trust_ratio(0.5), zero, zero), zero, rtol=0)
    least = once(gk.normalize_by_trust_ratio(min_norm=3.0), d, zero)
    np.testing.assert_allclose(norm(least["kernel"]), 3.0, rtol=SLACK)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 1e6, 1e25])
def test_hyperball_stays_on_its_spheres(scale: float) -> None:
    seen = walk(gk.retract_by_hyperball(), 20, scale)
    for p in seen[1:]:
        for k, x in p.items():
            np.testing.assert_allclose(norm(x), norm(seen[0][k]), rtol=SLACK)


def test_hyperball_remembers_the_first_norm_not_the_last() -> None:
    tx, p = gk.retract_by_hyperball(), jnp.array([[3.0, 4.0]])
    _, state = tx.update(p, tx.init(p), p)
    u, _ = tx.update(p, state, 7 * p)  # put elsewhere by somebody else
    np.testing.assert_allclose(7 * p + u, p, rtol=SLACK)


@pytest.mark.parametrize("learning_rate", [0.01, 0.3])
def test_learning_rate_bounds_the_angle_on_a_hyperball(learning_rate: float) -> None:
    """AdamH: no leaf turns by more than the angle whose sine is the learning rate."""
    tx = gk.chain(
        gk.scale_by_adam(),
        gk.normalize_by_trust_ratio(),
        gk.step_by_learning_rate(learning_rate),
        gk.retract_by_hyperball(),
    )
    seen, least = walk(tx, 10), np.sqrt(1 - learning_rate**2)
    cosines = [
        along(p[k], q[k]) for p, q in itertools.pairwise(seen) for k in p if p[k].size
    ]
    assert least - SLACK < min(cosines) < (1 + least) / 2 + SLACK


@pytest.mark.parametrize("outward,inward", [(0.5, 1.0), (0.0, 1.0), (0.3, 0.0)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_brake_keeps_a_share_of_growth(scale, outward, inward) -> None:
    p = draw(0)
    for sign in (1, -0.5):  # out along the weights, and in
        u = {k: 0.1 * scale * (x + sign * 3 * p[k]) for k, x in draw(1).items()}
        got = once(gk.retract_by_radial_brake(outward, inward=inward), u, p)
        for k in [k for k in p if p[k].size]:
            free, end = p[k] + u[k], p[k] + got[k]
            gain = norm(free) - norm(p[k])
            kept = (outward if gain > 0 else inward) * gain
            np.testing.assert_allclose(norm(end), norm(p[k]) + kept, rtol=SLACK)
            assert norm(end) < SLACK or along(end, free) > 1 - SLACK


def test_a_brake_that_keeps_all_changes_nothing() -> None:
    p, u = draw(0, shapes=ODD), draw(1, shapes=ODD)
    assert_same(once(gk.retract_by_radial_brake(1.0), u, p), u, atol=SLACK)
    back = once(gk.retract_by_radial_brake(0.5), jax.tree.map(jnp.negative, p), p)
    assert_same(back, jax.tree.map(jnp.negative, p))  # all the way to zero


@pytest.mark.parametrize(
    "tx", [gk.retract_by_hyperball(), gk.retract_by_radial_brake()]
)
def test_spheres_leave_vectors_and_scalars_alone(tx: Any) -> None:
    shapes = {"bias": (4,), "scale": ()}
    u = draw(1, shapes=shapes)
    assert_same(once(tx, u, draw(0, shapes=shapes)), u, rtol=0)


def test_hyperball_leaves_weights_of_norm_zero_alone() -> None:
    p, u = jax.tree.map(jnp.zeros_like, draw(0)), draw(1)
    assert_same(once(gk.retract_by_hyperball(), u, p), u, rtol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e25])
def test_units_reach_the_floor_and_others_stay(scale: float) -> None:
    p, d = draw(0, shapes=ODD), draw(1, scale, ODD)
    u = once(gk.step_by_weight_floor(0.9), d, p)
    for k in SHAPES:
        long, least = units(d[k]), 0.9 * units(p[k])
        want = np.maximum(long, least)
        np.testing.assert_allclose(units(u[k]), want, rtol=SLACK)
        stays = long > least * (1 + SLACK)
        np.testing.assert_array_equal(u[k][..., stays], d[k][..., stays])
        assert not d[k].size or np.all(u[k] * jnp.sign(d[k]) >= 0)
    assert_same(
        {k: u[k] for k in ("bias", "scale")}, {k: d[k] for k in ("bias", "scale")}
    )


def test_a_zero_direction_has_no_floor() -> None:
    p, zero = draw(0), jax.tree.map(jnp.zeros_like, draw(0))
    assert_same(once(gk.step_by_weight_floor(), zero, p), zero, rtol=0)


@pytest.mark.parametrize("decay", [gk.decay_by_caution, gk.decay_by_weight])
def test_decay_flips_no_sign_and_enlarges_nothing(
    decay: Callable[[float], Any],
) -> None:
    p, zero = draw(0, shapes=ODD), jax.tree.map(jnp.zeros_like, draw(0, shapes=ODD))
    for share in (0.0, 0.3, 1.0):
        q = optax.apply_updates(p, once(decay(share), zero, p))
        assert_same(q, {k: (1 - share) * x for k, x in p.items()}, atol=1e-7)


def test_cautious_decay_never_opposes_the_update() -> None:
    p, u = draw(0, shapes=ODD), draw(1, shapes=ODD)
    got, all_of_it = (
        once(decay(0.3), u, p) for decay in (gk.decay_by_caution, gk.decay_by_weight)
    )
    for k in p:
        shrinks = np.asarray(u[k] * p[k] <= 0)
        np.testing.assert_array_equal(got[k], np.where(shrinks, all_of_it[k], u[k]))
        assert np.all(np.sign(got[k]) == np.sign(u[k]))
        assert np.all(np.abs(got[k]) >= np.abs(u[k]))


def same(shape: tuple[int, ...]) -> gk.Parameter:
    """A hidden matrix that did not grow."""
    return gk.Parameter(shape, shape, "hidden", (0,), (1,))


DECAYS = {
    "caution": gk.decay_by_caution,
    "weight": gk.decay_by_weight,
    "completep": lambda decay: gk.decay_by_completep(
        gk.Parametrization({k: same(x.shape) for k, x in draw(0).items()}),
        weight_decay=decay,
    ),
}


@pytest.mark.parametrize("decay", DECAYS.values(), ids=DECAYS)
def test_decay_of_a_short_update_is_rounded_once(decay: Callable[..., Any]) -> None:
    p, short = draw(0), {k: u.astype(jnp.bfloat16) for k, u in draw(1).items()}
    wide = {k: u.astype(jnp.float32) for k, u in short.items()}
    got, want = (once(decay(0.3), u, p) for u in (short, wide))
    assert_same(got, {k: u.astype(jnp.bfloat16) for k, u in want.items()}, atol=0)


@pytest.mark.parametrize("decay", DECAYS.values(), ids=DECAYS)
def test_decay_has_a_schedule_of_its_own(decay: Callable[..., Any]) -> None:
    """Without gradients a run is the product of its shares, whatever the learning rate."""
    shares = [0.5, 0.2, 0.0, 0.1]
    schedule = lambda step: jnp.asarray(shares)[step]
    want = np.cumprod([1 - share for share in shares])
    for learning_rate in (1e-3, 10.0, lambda step: 1.0 / (1 + step.astype(float))):
        tx = gk.chain(gk.step_by_learning_rate(learning_rate), decay(schedule))
        seen = [p["kernel"] for p in walk(tx, 4, scale=0.0)]
        for q, left in zip(seen[1:], want):
            np.testing.assert_allclose(q, left * seen[0], rtol=SLACK)


def test_decay_is_the_same_at_every_learning_rate() -> None:
    """The share of a parameter that one update takes away, gradients or not."""
    for learning_rate in (1e-4, 1.0):
        plain = gk.step_by_learning_rate(learning_rate)
        decayed = gk.chain(plain, gk.decay_by_weight(0.25))
        p, g = draw(0), draw(1)
        lost = jax.tree.map(jnp.subtract, once(plain, g, p), once(decayed, g, p))
        assert_same(lost, {k: 0.25 * x for k, x in p.items()}, rtol=1e-4, atol=1e-6)


def trace(tx: Any, gs: list[Tree], p: Tree) -> tuple[list[Tree], list[Any]]:
    """The updates, and the states before and after them, at fixed parameters."""
    tx = optax.with_extra_args_support(tx)
    update, states, out = jax.jit(tx.update), [tx.init(p)], []
    for g in gs:
        u, state = update(g, states[-1], p)
        out.append(u)
        states.append(state)
    return out, states


INNER = {
    "adam": gk.scale_by_adam,
    "optax": lambda: optax.trace(0.9),
    "nested": lambda: gk.chain(gk.clip_by_spike(0.9), gk.average_by_nesterov()),
    "key": gk.average_by_random_scaling,
}


@pytest.mark.parametrize("name", INNER)
def test_a_reset_is_a_fresh_start(name: str) -> None:
    gs, p = [draw(t) for t in range(7)], draw(9)
    got, _ = trace(gk.reset_by_period(INNER[name](), every=3), gs, p)
    fresh = [trace(INNER[name](), gs[t : t + 3], p)[0] for t in (0, 3, 6)]
    assert_same(got, list(itertools.chain(*fresh)), rtol=1e-6, atol=1e-7)


def test_a_reset_starts_from_the_parameters_there_are() -> None:
    inner = functools.partial(gk.scale_by_innaprop, 0.1)
    p, g = draw(0), draw(1)
    tx = gk.reset_by_period(inner(), every=1)
    _, state = tx.update(g, tx.init(p), p)
    moved = {k: x + 1 for k, x in p.items()}
    assert_same(tx.update(g, state, moved)[0], once(inner(), g, moved))


def test_a_part_is_reset_and_the_rest_runs_on() -> None:
    gs, p = [draw(t) for t in range(5)], draw(9)
    _, plain = trace(gk.scale_by_adam(), gs, p)
    _, part = trace(gk.reset_by_period(gk.scale_by_adam(), every=3, only="^mu/"), gs, p)
    _, young = trace(gk.scale_by_adam(), gs[3:], p)
    for t, state in enumerate(part):
        assert_same(state.inner.nu, plain[t].nu)
        assert state.inner.count == state.count == t
        assert_same(state.inner.mu, (plain[t] if t <= 3 else young[t - 3]).mu)


def test_a_leaf_is_reset_and_the_rest_runs_on() -> None:
    gs, p = [draw(t) for t in range(3)], draw(9)
    tx = gk.reset_by_period(
        gk.chain(gk.average_by_heavy_ball()), every=2, only="mu/kernel"
    )
    (*_, got), _ = trace(tx, gs, p)
    (*_, plain), _ = trace(gk.average_by_heavy_ball(), gs, p)
    assert_same(got, plain | {"kernel": gs[2]["kernel"]})


def test_a_part_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"only = 'nu/' must be found.*mu/kernel"):
        gk.reset_by_period(gk.average_by_heavy_ball(), only="nu/").init(draw(0))
    assert gk.reset_by_period(gk.average_by_heavy_ball(), only="nu/").init({})


PEERS = {
    "lamb": (
        lambda: gk.lamb(0.1, weight_decay=0.1),
        lambda: optax.lamb(0.1, weight_decay=0.1),
    ),
    "lars": (
        lambda: gk.lars(0.1, weight_decay=0.0),
        lambda: optax.lars(0.1, weight_decay=0.0),
    ),
    "lars of sums": (  # as MoCo and optax have it: the norm of gradient and decay together
        lambda: gk.chain(
            optax.add_decayed_weights(0.1), gk.lars(0.1, weight_decay=0.0)
        ),
        lambda: optax.lars(0.1, weight_decay=0.1),
    ),
}


@pytest.mark.parametrize("name", PEERS)
def test_trust_ratios_are_those_of_optax(name: str) -> None:
    gs, p = [draw(t, shapes=ODD) for t in range(6)], draw(9, shapes=ODD)
    with jax.numpy_dtype_promotion("standard"):
        got, want = (trace(make(), gs, p)[0] for make in PEERS[name])
    assert_same(got, want, atol=1e-6)


def turned(direct: Callable[[Any], Any], recipe: Any) -> Any:
    """`direct` around a recipe, whose updates have turned their sign already."""
    turn = optax.scale(-1.0)
    return gk.chain(direct(gk.chain(recipe, turn)), turn)


RECIPES: dict[str, Callable[[], Any]] = {
    "sgd": lambda: gk.sgd(0.1, momentum=0.9),
    "adamw": lambda: gk.adamw(0.1, weight_decay=0.0),
    "ademamix": lambda: gk.ademamix(0.1, alpha=8.0, weight_decay=0.0),
    "muon": lambda: gk.muon(hidden=lambda path, x: x.ndim > 1),
    "lars": lambda: gk.lars(weight_decay=0.0),
    "stable_spam": gk.stable_spam,
}


@pytest.mark.parametrize("name", RECIPES)
def test_any_recipe_can_be_cautious_or_grams(name: str) -> None:
    gs, p = [draw(t, shapes=ODD) for t in range(6)], draw(9, shapes=ODD)
    bold, cautious, grams = (
        trace(tx, gs, p)[0]
        for tx in (
            RECIPES[name](),
            turned(gk.direct_by_caution, RECIPES[name]()),
            turned(gk.direct_by_grams, RECIPES[name]()),
        )
    )
    opposed = 0
    for g, u, c, s in zip(gs, bold, cautious, grams):
        for k in g:
            down = np.asarray(u[k] * g[k] < 0)
            share = u[k].size / (down.sum() + 1)
            np.testing.assert_allclose(c[k], share * down * u[k], rtol=SLACK)
            np.testing.assert_allclose(s[k], -jnp.sign(g[k]) * abs(u[k]), rtol=SLACK)
            opposed += np.sum(~down)
    assert opposed > 10  # there was something to turn


def decoupled(tx: Any, share: float) -> Any:
    return gk.chain(tx, gk.decay_by_weight(share))


def cautious_lion() -> Any:
    lion = turned(gk.direct_by_caution, gk.lion(1e-3, weight_decay=0.0))
    return gk.chain(lion, gk.decay_by_weight(1e-3 * 0.1))


def grams() -> Any:
    adam = gk.adamw(1e-2, eps=1e-6, weight_decay=0.0)
    return gk.chain(turned(gk.direct_by_grams, adam), gk.decay_by_weight(1e-2 * 0.02))


def adam_subset_norm() -> Any:
    """The release decays last, and adds `eps` before debiasing."""
    share = 1e-2 * 0.01
    eps = lambda step: 1e-6 / jnp.sqrt(1 - 0.999 ** (step.astype(float) + 1))
    return gk.adamw_subset_norm(
        1e-2 * (1 - share), eps=eps, weight_decay=0.01 / (1 - share)
    )


@pytest.mark.parametrize("make", [cautious_lion, grams, adam_subset_norm])
def test_recipes_reach_released_numbers(make: Callable[[], Any]) -> None:
    with jax.enable_x64(True):
        assert worst_error(Golden(make.__name__, make, False, None, 1e-7)) <= 1e-7
