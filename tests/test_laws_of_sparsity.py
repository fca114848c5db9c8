"""What masks promise, each promise a named property with a definition."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk

Tree = dict[str, Any]
SHAPES = {
    "kernel": (20, 10),
    "conv": (2, 3, 5),
    "bias": (10,),
    "gain": (),
    "none": (0, 3),
}
EDGES = [0.0, 1e-45, 1e-38, 1e-30, 1e25, 3.4e38]


def draw(seed: int, scale: float = 1.0) -> Tree:
    rng = np.random.default_rng(seed)
    sizes = {k: scale * rng.normal(size=s) for k, s in SHAPES.items()}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), sizes)


def kept(u: Tree) -> dict[str, np.ndarray]:
    """Where a direction is not zero."""
    return {k: np.asarray(x) != 0 for k, x in u.items()}


def number(mask: dict[str, np.ndarray]) -> int:
    return sum(int(m.sum()) for m in mask.values())


def masked(u: Tree, g: Tree) -> None:
    """Every entry is that of the gradient, or zero."""
    for k in g:
        assert np.all((u[k] == g[k]) | (u[k] == 0)), k


def density_met(mask: dict[str, np.ndarray], density: float) -> None:
    """Every leaf keeps its share, rounded, and at least one entry where it has any."""
    for k, m in mask.items():
        share = max(1, round(density * m.size)) if m.size else 0
        assert m.sum() == share, (k, m.sum(), share)


def support_kept(p: Tree, q: Tree, mask: dict[str, np.ndarray]) -> None:
    """Parameters outside the mask are the same, bit for bit."""
    for k, m in mask.items():
        np.testing.assert_array_equal(np.asarray(p[k])[~m], np.asarray(q[k])[~m], k)


def run(tx: Any, steps: int, p: Tree, seed: int = 10) -> tuple[Tree, list[Tree], Any]:
    """Parameters after a run of random gradients, the updates, and the last state."""
    update, state, us = jax.jit(tx.update), tx.init(p), []
    for t in range(steps):
        u, state = update(draw(seed + t), state, p)
        p = optax.apply_updates(p, u)
        us.append(u)
    return p, us, state


@pytest.mark.parametrize("density", [1e-9, 0.1, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("scale", [1e-38, 1e-20, 1.0, 1e30])
def test_gradient_magnitude_keeps_the_largest(density: float, scale: float) -> None:
    g, tx = draw(0, scale), gk.mask_by_gradient_magnitude(density)
    u, _ = jax.jit(tx.update)(g, tx.init(g))
    masked(u, g)
    density_met(kept(u), density)
    for k, m in kept(u).items():
        if m.any() and not m.all():
            sizes = np.abs(np.asarray(g[k]))
            assert sizes[m].min() > sizes[~m].max()


def test_ties_are_kept_together() -> None:
    tx = gk.mask_by_gradient_magnitude(0.5)
    g = jnp.array([2.0, -2.0, 2.0, 1.0])
    assert tx.update(g, tx.init(g))[0].tolist() == [2.0, -2.0, 2.0, 0.0]


@pytest.mark.parametrize("edge", EDGES)
def test_thresholds_at_the_ends_of_float32(edge: float) -> None:
    g = jnp.array([edge, -edge, edge, 0.0], jnp.float32)
    tx = gk.mask_by_gradient_magnitude(0.75)
    np.testing.assert_array_equal(tx.update(g, tx.init(g))[0], g)


@pytest.mark.parametrize("density", [0.05, 0.5])
def test_fixed_masks_share_one_density_and_hold_for_the_run(density: float) -> None:
    p = draw(1)
    total = sum(x.size for x in p.values())
    for tx in (
        gk.mask_by_fisher(density, samples=3),
        gk.mask_by_saliency(
            gk.adamw(0.1, weight_decay=0.1), density=density, samples=3
        ),
    ):
        q, us, _ = run(tx, 8, p)
        assert all(number(kept(u)) == 0 for u in us[:3])
        mask = kept(us[3])
        assert number(mask) == round(density * total)
        support_kept(p, q, mask)
        for u in us[4:]:
            assert number({k: m & ~mask[k] for k, m in kept(u).items()}) == 0


def test_entries_without_gradient_are_never_chosen() -> None:
    g = jnp.array([0.0, 0.0, 0.0, 1.0])
    for tx in (
        gk.mask_by_fisher(0.75, samples=1),
        gk.mask_by_saliency(optax.identity(), density=0.75),
    ):
        _, state = tx.update(g, tx.init(g))
        u, _ = tx.update(jnp.ones(4), state)
        assert u.tolist() == [0.0, 0.0, 0.0, 1.0]


def test_a_given_fisher_diagonal_chooses() -> None:
    tx = gk.mask_by_fisher(0.5, samples=1)
    g, diagonal = jnp.array([9.0, 1.0]), jnp.array([1.0, 2.0])
    _, state = tx.update(g, tx.init(g), fisher_diagonal=diagonal)
    assert tx.update(g, state)[0].tolist() == [0.0, 1.0]


def test_disruption_follows_the_retained_gradient() -> None:
    """The paper's loop, in NumPy, with gradients of its own to retain."""
    tx = gk.mask_by_disruption(0.8)
    state, r = tx.init(draw(0)), {k: np.zeros(s) for k, s in SHAPES.items()}
    for t in range(6):
        g, retain = draw(20 + t), draw(40 + t)
        u, state = tx.update(g, state, retain_gradient=retain)
        r = {k: 0.8 * r[k] + 0.2 * np.asarray(retain[k]) for k in r}
        norm = np.sqrt(sum(np.sum(np.asarray(x, float) ** 2) for x in g.values()))
        for k in g:
            want = np.asarray(g[k]) * (np.sign(g[k]) == np.sign(r[k])) / norm
            np.testing.assert_allclose(u[k], want, rtol=1e-5)


def test_small_weights_leave_the_mask_and_do_not_return() -> None:
    tx, p = gk.mask_by_small_weight(1.0, every=2), draw(2)
    state, before = tx.init(p), None
    for t in range(8):
        q = draw(50 + t)
        u, state = tx.update(draw(60 + t), state, q)
        mask = kept(u)
        if before is not None:
            assert all(np.all(before[k] | ~mask[k]) for k in mask)
            if t % 2:
                assert all(np.array_equal(before[k], mask[k]) for k in mask)
        before = mask


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_regrowth_keeps_its_density_and_all_others_zero(density: float) -> None:
    tx = gk.mask_by_regrowth(
        gk.adamw(0.1), density=density, every=3, fraction=0.5, until=20
    )
    p, seen = draw(3), []
    update, state = jax.jit(tx.update), tx.init(p)
    for t in range(12):
        u, state = update(draw(10 + t), state, p)
        p = optax.apply_updates(p, u)
        mask = {k: np.asarray(m) for k, m in state.mask.items()}
        matrices = {k: mask[k] for k in ("kernel", "conv", "none")}
        density_met(matrices, density)
        for k, m in mask.items():
            assert not np.any(np.asarray(p[k])[~m]), k
        seen.append(mask["kernel"])
    changes = [not np.array_equal(a, b) for a, b in itertools.pairwise(seen)]
    assert changes == [t % 3 == 0 for t in range(1, 12)]
    assert mask["bias"].all() and mask["gain"].all()


def test_regrowth_keeps_its_density_where_nothing_tells_weights_apart() -> None:
    tx = gk.mask_by_regrowth(optax.sgd(0.1), density=0.5, every=1)
    p = {"w": jnp.ones((4, 4))}
    state = tx.init(p)
    for g in (jnp.ones((4, 4)), jnp.zeros((4, 4)), jnp.zeros((4, 4))):
        u, state = tx.update({"w": g}, state, p)
        p = optax.apply_updates(p, u)
        density_met({"w": np.asarray(state.mask["w"])}, 0.5)


def test_annealing_begins_at_alpha_falls_and_ends_at_zero() -> None:
    tx = gk.mask_by_annealing(threshold=0.5, alpha=0.75, steps=10)
    p, g = jnp.array([1.0, 0.1]), jnp.ones(2)
    state, left = tx.init(p), []
    for _ in range(12):
        u, state = tx.update(g, state, p)
        assert u[0] == 1
        left.append(float(u[1]))
    assert left[0] == pytest.approx(0.75) and left[10:] == [0, 0]
    assert all(a >= b for a, b in itertools.pairwise(left))


@pytest.mark.parametrize(
    "broken",
    [
        functools.partial(density_met, density=0.3),
        lambda m: support_kept({"w": jnp.ones(4)}, {"w": jnp.zeros(4)}, m),
        lambda m: masked({"w": jnp.ones(4)}, {"w": jnp.full(4, 2.0)}),
    ],
)
def test_every_law_can_fail(broken: Callable[..., None]) -> None:
    with pytest.raises(AssertionError):
        broken({"w": np.array([True, True, False, False])})
