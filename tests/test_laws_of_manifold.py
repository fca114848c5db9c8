"""What steps that land somewhere promise, each promise a named property with a definition."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk

Tree = dict[str, Any]
SHAPES = {"kernel": (6, 4), "wide": (3, 5), "conv": (2, 3, 4), "none": (0, 3)}
SLACK = 1e-5
KERNEL = SHAPES["kernel"]


def draw(seed: int, scale: float = 1.0) -> Tree:
    rng = np.random.default_rng(seed)
    sizes = {k: scale * rng.normal(size=s) for k, s in SHAPES.items()}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), sizes)


def run(tx: Any, steps: int, scale: float = 0.1, p: Tree | None = None) -> list[Tree]:
    """The parameters before and after every update of a random walk."""
    update, p = jax.jit(tx.update), draw(0) if p is None else p
    state, seen = tx.init(p), [p]
    for t in range(steps):
        u, state = update(draw(1 + t, scale), state, p)
        p = optax.apply_updates(p, u)
        seen.append(p)
    return seen


def matrix(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64).reshape(-1, x.shape[-1])


def on_manifold(residual: Callable[[np.ndarray], Any], p: Tree) -> None:
    """The residual of the defining equation is zero, up to rounding, for every matrix."""
    for k, x in p.items():
        if x.size:
            worst = np.max(np.abs(residual(matrix(x))))
            assert worst <= SLACK, (k, worst)


def orthonormality(x: np.ndarray) -> np.ndarray:
    small = x if x.shape[0] <= x.shape[1] else x.T
    return small @ small.T - np.eye(len(small))


def groups_are_zero_or_far(p: Tree, least: float = 0.0) -> int:
    """Every group is exactly zero or longer than `least`; how many are zero."""
    zero = 0
    for k, x in p.items():
        norms = np.linalg.norm(matrix(x), axis=0) if x.size else np.zeros(0)
        assert np.all((norms == 0) | (norms > least)), k
        zero += int(np.sum(norms == 0))
    return zero


def non_increasing_radius(p: Tree, q: Tree) -> None:
    """No group is longer than before."""
    for k in p:
        before, after = (np.linalg.norm(matrix(x), axis=0) for x in (p[k], q[k]))
        assert np.all(after <= before * (1 + SLACK)), k


def identity_on(tx: Any, p: Tree, u: Tree) -> None:
    """The step passes every update as it is, bit for bit."""
    got, _ = jax.jit(tx.update)(u, tx.init(p), p)
    jax.tree.map(np.testing.assert_array_equal, got, u)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 1e6])
def test_stiefel_stays_orthonormal(scale: float) -> None:
    for p in run(gk.retract_by_stiefel(0.1), 40, scale)[1:]:
        on_manifold(orthonormality, p)


def test_stiefel_finds_the_principal_plane() -> None:
    """Minus the variance in a plane is least in that of the two largest eigenvalues."""
    a = jnp.diag(jnp.array([5.0, 4.0, 1.0, 0.5, 0.1]))
    tx = gk.retract_by_stiefel(lambda step: 0.3 / (1 + step.astype(jnp.float32)) ** 0.5)
    p = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (5, 2)))[0]
    grad = jax.jit(jax.grad(lambda p: -jnp.trace(p.T @ a @ p)))
    update, state = jax.jit(tx.update), tx.init(p)
    for _ in range(300):
        u, state = update(grad(p), state, p)
        p = p + u
    assert float(jnp.trace(p.T @ a @ p)) > 9 * (1 - 1e-3)


@pytest.mark.parametrize("free", [0, 3])
@pytest.mark.parametrize("scale", [1e-6, 1e-2, 10.0])
def test_fixed_norm_keeps_the_norm(scale: float, free: int) -> None:
    seen = run(gk.retract_by_fixed_norm(free), 40, scale)
    radius = {k: np.linalg.norm(x) for k, x in seen[free].items()}
    for p in seen[free:]:
        for k, x in p.items():
            np.testing.assert_allclose(np.linalg.norm(x), radius[k], rtol=SLACK)


def test_fixed_norm_passes_free_updates_vectors_and_zeros() -> None:
    p, u = draw(0), draw(1)
    identity_on(gk.retract_by_fixed_norm(1), p, u)
    identity_on(
        gk.retract_by_fixed_norm(), {"bias": jnp.ones(3)}, {"bias": jnp.ones(3)}
    )
    identity_on(gk.retract_by_fixed_norm(), jax.tree.map(jnp.zeros_like, p), u)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
@pytest.mark.parametrize("limit", [1.0, 1.5, 10.0])
def test_conditioned_low_rank_has_rank_and_condition(
    scale: float, limit: float
) -> None:
    for p in run(gk.retract_by_conditioned_low_rank(2, max_condition=limit), 10, scale)[
        1:
    ]:
        for x in (p["kernel"], p["wide"], p["conv"]):
            s = np.linalg.svd(matrix(x))[1]
            assert s[2] <= SLACK * s[0]
            assert s[0] <= s[1] * limit * (1 + SLACK)


def test_conditioned_low_rank_stays_where_it_landed() -> None:
    tx = gk.retract_by_conditioned_low_rank(2, max_condition=2.0)
    zero = jax.tree.map(jnp.zeros_like, draw(0))
    p = run(tx, 1)[1]
    u, _ = tx.update(zero, tx.init(p), p)
    for k, x in u.items():
        assert np.all(np.abs(x) <= SLACK * np.max(np.abs(p[k]), initial=0))


def test_mirror_of_the_euclidean_norm_is_addition() -> None:
    p, u = draw(0), draw(1)
    got, _ = gk.retract_by_mirror(2.0).update(u, optax.EmptyState(), p)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, u)


@pytest.mark.parametrize("power", [1.1, 1.5, 3.0, 6.0])
@pytest.mark.parametrize("entry", [0.0, 1e-45, 1e-30, 1.0, 1e25, 3.4e38])
def test_mirror_is_finite(power: float, entry: float) -> None:
    tx = gk.retract_by_mirror(power)
    edge = jnp.asarray([entry, -entry, 0.0], jnp.float32)
    for p, u in ((edge, jnp.ones(3)), (jnp.ones(3), edge), (edge, edge), (edge, -edge)):
        got, _ = tx.update(u, optax.EmptyState(), p)
        assert np.all(np.isfinite(got)), (p, u, got)


@pytest.mark.parametrize(
    "tx",
    [
        gk.shrink_by_group_lasso(0.0),
        gk.shrink_by_nonconvex(0.0),
        gk.shrink_by_half_space(0.0, warmup=1),
    ],
    ids=["group_lasso", "nonconvex", "half_space"],
)
def test_no_shrinkage_is_no_change(tx: Any) -> None:
    identity_on(tx, draw(0), draw(1))


def test_group_lasso_zeroes_whole_groups_and_shortens_the_rest() -> None:
    tx, p = gk.shrink_by_group_lasso(1.5), draw(0)
    zero = jax.tree.map(jnp.zeros_like, p)
    counts = []
    for _ in range(4):
        u, _ = tx.update(zero, tx.init(p), p)
        q = optax.apply_updates(p, u)
        non_increasing_radius(p, q)
        counts.append(groups_are_zero_or_far(q))
        p = q
    assert 0 < counts[0] < counts[-1] == 4 + 5 + 4


def test_group_lasso_is_the_proximal_point() -> None:
    """Where `shrinkage * norm + distance^2 / 2` is least: no point near it has less."""
    tx, p, u = gk.shrink_by_group_lasso(0.7), draw(0)["kernel"], draw(1)["kernel"]
    q = np.asarray(p + tx.update(u, tx.init(p), p)[0], np.float64)
    reached, rng = np.asarray(p + u, np.float64), np.random.default_rng(0)

    def cost(x: np.ndarray) -> np.ndarray:
        return 0.7 * np.linalg.norm(x, axis=0) + np.sum((x - reached) ** 2, axis=0) / 2

    for size in (1e-2, 1e-1, 1.0):
        for _ in range(20):
            assert np.all(cost(q + size * rng.normal(size=KERNEL)) >= cost(q) - 1e-6)


def test_group_lasso_of_inputs() -> None:
    tx = gk.shrink_by_group_lasso(1.0, axes=(-2,))
    p = jnp.array([[3.0, 4.0], [0.1, 0.2]])
    q = p + tx.update(0 * p, tx.init(p), p)[0]
    np.testing.assert_allclose(q, [[2.4, 3.2], [0, 0]], rtol=1e-6)


def test_half_space_zeroes_groups_that_turn_and_keeps_them() -> None:
    tx, p = gk.shrink_by_half_space(0.1, eps=0.9, warmup=1), draw(0)
    state, gone = tx.init(p), {k: np.zeros(x.shape[-1], bool) for k, x in p.items()}
    for t in range(8):
        u = draw(1 + t, 0.7)
        out, state = tx.update(u, state, p)
        q = optax.apply_updates(p, out)
        groups_are_zero_or_far(q)
        for k in ("kernel", "wide", "conv"):
            a, b, x = matrix(p[k]), matrix(u[k]), matrix(q[k])
            norm = np.linalg.norm(a, axis=0)
            unit = a / np.where(norm > 0, norm, 1)
            along = norm + np.sum(b * unit, axis=0) - 0.1
            want = (along < 0.9 * norm) | (norm == 0) if t else np.zeros_like(gone[k])
            np.testing.assert_array_equal(~np.any(x, axis=0), want)
            assert np.all(want | ~gone[k]), "a group that is gone stays gone"
            gone[k] = want
        p = q
    assert sum(g.sum() for g in gone.values()) > 3


def test_nonconvex_is_continuous_and_leaves_large_weights_alone() -> None:
    tx = gk.shrink_by_nonconvex(0.5, plateau=1.5)
    p = jnp.linspace(-3, 3, 2001)
    q = p + tx.update(jnp.zeros_like(p), tx.init(p), p)[0]
    size = np.abs(p)
    assert np.all(q[size > 1.5] == p[size > 1.5]) and not np.any(q[size <= 0.5])
    assert np.max(np.abs(np.diff(q))) <= 1.6 * 6 / 2000
    assert np.all(np.abs(q) <= size * (1 + SLACK))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_zeros_are_exact_in_every_dtype(dtype: Any) -> None:
    p = jnp.asarray(draw(0)["kernel"], dtype)
    for tx in (
        gk.shrink_by_group_lasso(100.0),
        gk.shrink_by_nonconvex(50.0, plateau=100.0),
    ):
        u, _ = tx.update(jnp.asarray(draw(1)["kernel"], dtype), tx.init(p), p)
        assert not np.any(optax.apply_updates(p, u))


def test_unit_norm_decay_draws_every_unit_to_norm_one() -> None:
    tx = gk.chain(optax.scale(0.0), gk.decay_by_unit_norm(0.1))
    for x in run(tx, 60)[-1].values():
        if x.size:
            np.testing.assert_allclose(np.linalg.norm(matrix(x), axis=0), 1, rtol=SLACK)


def test_relevance_decay_without_gradient_is_weight_decay() -> None:
    p = draw(0)
    zero = jax.tree.map(jnp.zeros_like, p)
    tx, plain = (
        gk.decay_by_relevance(optax.sgd(0.1), weight_decay=0.2),
        gk.decay_by_weight(0.2),
    )
    got, _ = tx.update(zero, tx.init(p), p)
    want, _ = plain.update(zero, plain.init(p), p)
    jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize(
    "law,p",
    [
        (lambda p: on_manifold(orthonormality, p), draw(0)),
        (lambda p: groups_are_zero_or_far(p, 3.0), draw(0)),
        (lambda p: non_increasing_radius(p, {k: 2 * x for k, x in p.items()}), draw(0)),
        (lambda p: identity_on(optax.scale(0.5), p, p), draw(0)),
    ],
    ids=["on_manifold", "zero_or_far", "radius", "identity"],
)
def test_every_law_can_fail(law: Callable[[Tree], Any], p: Tree) -> None:
    with pytest.raises(AssertionError):
        law(p)
