"""Updates as large as AdamW's, whatever the shape: Moonlight's scale for Muon and its kin."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entry import ENTRIES, follow
from test_oracles import run

import gradkit as gk

NAMES = ["normalize_by_polar", "project_by_dion", "muon", "normuon", "dion"]
SHAPES = {"tall": (48, 8), "wide": (8, 48), "square": (16, 16), "conv": (2, 2, 3, 20)}


def draw(seed: int):
    """Random gradients, or parameters."""
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s)) for k, s in SHAPES.items()}


def rms(x) -> float:
    """The root mean square of an array."""
    return float(jnp.sqrt(jnp.mean(x**2)))


def worst_error(got, want) -> float:
    """The largest difference of all leaves, relative to the leaf's largest entry."""
    errors = jax.tree.map(
        lambda a, b: jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)), got, want
    )
    return float(max(jax.tree.leaves(errors)))


@pytest.mark.parametrize("name", NAMES)
def test_follows_paper(name: str) -> None:
    """The oracle with this scale, and the scale is heard."""
    entry = ENTRIES[name]
    scaled = entry._replace(hyper={**entry.hyper, "consistent_rms": 0.3})
    got, want, plain = run(scaled), follow(scaled), follow(entry)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-8, 1e-10), got, want)
    assert worst_error(got[0]["wide"], plain[0]["wide"]) > 0.1


@pytest.mark.parametrize("name", ["muon", "normuon", "dion"])
def test_updates_of_every_shape_are_as_large(name: str) -> None:
    """Singular values are 0.68 to 1.21 of what they are meant to be; Dion's are 1."""
    tx = getattr(gk, name)(0.1, weight_decay=0.0, consistent_rms=0.2)
    u, _ = tx.update(draw(0), tx.init(draw(1)), draw(1))
    assert all(0.68 < rms(x) / 0.02 < 1.21 for x in u.values())
    plain = getattr(gk, name)(0.1, weight_decay=0.0)
    u, _ = plain.update(draw(0), plain.init(draw(1)), draw(1))
    assert max(map(rms, u.values())) > 1.5 * min(map(rms, u.values()))


def test_adam_is_as_large_after_some_steps() -> None:
    """0.2 is what AdamW's updates come to on noise: here they are 0.23 times the rate."""
    adam, matrices = gk.adamw(0.1, weight_decay=0.0), gk.muon(0.1, consistent_rms=0.2)
    states, us = [tx.init(draw(99)) for tx in (adam, matrices)], []
    for t in range(40):
        steps = [
            tx.update(draw(t), s, draw(99)) for tx, s in zip((adam, matrices), states)
        ]
        us, states = zip(*steps)
    for k in SHAPES:
        assert 0.5 < rms(us[0][k]) / rms(us[1][k]) < 2


@pytest.mark.parametrize("rank", [1, 4])
def test_a_low_rank_is_as_large(rank: int) -> None:
    tx = gk.project_by_dion(rank, consistent_rms=0.2)
    u, _ = tx.update(draw(0), tx.init(draw(1)))
    assert all(abs(rms(x) / 0.2 - 1) < 0.5 for x in u.values())


def test_the_first_update_is_that_of_optax() -> None:
    """Later ones differ in how optax debiases the gradient that looks ahead."""
    ours = gk.muon(0.1, weight_decay=0.1, eps=0.0, consistent_rms=0.2)
    theirs = optax.contrib.muon(
        0.1,
        weight_decay=0.1,
        eps=0.0,
        consistent_rms=0.2,
        muon_weight_dimension_numbers=lambda p: jax.tree.map(columns, p),
    )
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        p, g = draw(0), draw(1)
        got, want = (tx.update(g, tx.init(p), p)[0] for tx in (ours, theirs))
        assert worst_error(got, want) < 1e-9


def columns(p):
    """The last axis the columns, all others the rows."""
    return optax.contrib.MuonDimensionNumbers(tuple(range(p.ndim - 1)), p.ndim - 1)


def test_directions_of_averages_are_those_of_optax() -> None:
    ours = gk.chain(
        gk.average_by_heavy_ball(0.9),
        gk.normalize_by_polar(0.0, consistent_rms=0.3),
        gk.step_by_learning_rate(0.1),
    )
    theirs = optax.contrib.muon(
        0.1,
        beta=0.9,
        nesterov=False,
        weight_decay=0.0,
        eps=0.0,
        consistent_rms=0.3,
        muon_weight_dimension_numbers=lambda p: jax.tree.map(columns, p),
    )
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        states = [tx.init(draw(99)) for tx in (ours, theirs)]
        for t in range(4):
            steps = [
                tx.update(draw(t), s, draw(99)) for tx, s in zip((ours, theirs), states)
            ]
            us, states = zip(*steps)
            assert worst_error(us[0], us[1]) < 1e-9


@pytest.mark.parametrize("name", NAMES)
def test_a_scale_that_is_none_is_named(name: str) -> None:
    for bad in (0.0, -1.0, "0.2"):
        with pytest.raises((ValueError, TypeError)) as caught:
            getattr(gk, name)(consistent_rms=bad)
        said = str(caught.value)
        assert said.startswith(f"gradkit.{name}: consistent_rms must be"), said
        assert f"got {bad!r}" in said


def test_it_may_be_scheduled() -> None:
    tx = gk.muon(0.1, consistent_rms=lambda count: jnp.where(count > 0, 0.4, 0.2))
    state, sizes = tx.init(draw(1)), []
    for _ in range(2):
        u, state = tx.update(draw(0), state, draw(1))
        sizes.append(rms(u["wide"]))
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=1e-4)
