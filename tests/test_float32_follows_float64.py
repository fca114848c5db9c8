"""Float32 does what float64 does, also where gradients lack rank and eigenvectors have ties.

What divides by the size of each entry makes of a rounding an update like any other: in another
basis, where zeros are no longer exact, it is told apart by what it was rounded from.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from entry import ENTRIES, MADE

import gradkit as gk
from gradkit import subspace
from gradkit._core.matrix import linalg
from gradkit.catalogue import METHODS
from gradkit.testing import LAWS, Subject

FAMILIES = {"precondition", "subspace", "normalize"}
RECIPES = {"apollo", "dion", "fira", "galore", "grass_jump", "grass_walk", "kl_shampoo"}
RECIPES |= {"lorp", "muon", "normuon", "psgd", "shampoo", "snsm", "soap"}


def at_defaults() -> list[Any]:
    """Methods that work on matrices; those made of parts are left to `make check-full`."""
    return [
        pytest.param(m.name, marks=[pytest.mark.slow] * (m.name in MADE))
        for m in METHODS
        if m.family in FAMILIES or m.name in RECIPES
    ]


@pytest.mark.parametrize("name", at_defaults())
def test_at_defaults(name: str) -> None:
    """Where `eps` and `damping` are small enough to show what rounding leaves."""
    entry = ENTRIES[name]
    fixed = {
        k: v for k, v in entry.fixed.items() if k != "inner"
    }  # Adam, which divides
    make = entry._replace(hyper={}, fixed=fixed).factory
    paired = name == "precondition_by_paired_factors"
    shapes = {"low_a": (8, 3), "low_b": (3, 6), "x": (8, 6)}
    LAWS["follows_float64"](Subject(make, shapes if paired else {"kernel": (8, 6)}))


def follow(tx: Any, gs: list[Any], dtype: Any = np.float32) -> tuple[Any, Any]:
    """The last update of a jitted run, and the state after it."""
    with jax.enable_x64(dtype == np.float64):
        grads = jax.tree.map(lambda x: jnp.asarray(np.float32(x), dtype), gs)
        state, update = tx.init(grads[0]), jax.jit(tx.update)
        for g in grads:
            u, state = update(g, state, g)
        return jax.tree.map(np.float64, u), state


def low_rank(rng: np.random.Generator, rows: int, rank: int, cols: int) -> np.ndarray:
    """A product of numbers of 10 bits, which has this rank in float32 too."""
    a, b = rng.uniform(-1, 1, (rows, rank)), rng.uniform(-1, 1, (rank, cols))
    return np.round(a * 2**10) @ np.round(b * 2**10) / 2**20


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))


@functools.cache
def soap_of_fixed_gradients() -> tuple[dict[str, np.ndarray], list[Any]]:
    """Gradients, and what 60 equal ones come to in float32 and in float64."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape)
    g = {"noise": normal(32, 32), "few": low_rank(rng, 32, 4, 32)}
    g |= {"dead": normal(12, 10), "zero": np.zeros((5, 7))}
    g["dead"][5] = g["dead"][:, 7] = 0
    tx = gk.precondition_by_soap()
    return g, [follow(tx, [g] * 60, d)[0] for d in (np.float32, np.float64)]


def test_soap_makes_no_noise_of_a_fixed_gradient() -> None:
    g, us = soap_of_fixed_gradients()
    for u in us:
        np.testing.assert_allclose(np.max(np.abs(u["noise"])), 0.67, atol=0.01)
        np.testing.assert_allclose(np.linalg.norm(u["noise"]), 32**0.5, rtol=0.01)
        np.testing.assert_allclose(cosine(u["noise"], g["noise"]), 0.85, atol=0.01)


def test_soap_of_few_examples_has_their_rank() -> None:
    g, us = soap_of_fixed_gradients()
    for u in us:
        np.testing.assert_allclose(np.linalg.svd(u["few"])[1][:4], 1, rtol=1e-3)
        assert np.all(np.linalg.svd(u["few"])[1][4:] < 1e-5)
        assert cosine(u["few"], g["few"]) > 0.9


def test_soap_moves_no_weight_without_gradient() -> None:
    _, us = soap_of_fixed_gradients()
    for u in us:
        still = np.concatenate([u["dead"][5], u["dead"][:, 7]])
        assert np.max(np.abs(still)) < 1e-5 * np.max(np.abs(u["dead"]))
        assert not np.any(u["zero"])


def test_soap_keeps_all_of_what_is_small_but_not_rounding() -> None:
    """Entries of a full gradient from 1 down to a millionth."""
    rng, scales = np.random.default_rng(0), np.geomspace(1, 1e-3, 24)
    gs = [np.outer(scales, scales) * rng.normal(size=(24, 24)) for _ in range(14)]
    _, state = follow(gk.precondition_by_soap(), gs)
    assert np.min(state.nu) > 0


@pytest.mark.parametrize("shape", [(1, 8192), (8192, 1)])
def test_soap_of_one_row_or_column_is_soap_of_a_vector(shape: tuple[int, ...]) -> None:
    tx, rng = gk.precondition_by_soap(), np.random.default_rng(0)
    sizes = lambda shape: [
        x.size for x in jax.tree.leaves(jax.eval_shape(tx.init, jnp.zeros(shape)))
    ]
    assert sum(sizes(shape)) <= sum(sizes(8192)) + 2
    gs = [rng.normal(size=shape) for _ in range(3)]
    u, _ = follow(tx, gs)
    flat, _ = follow(tx, [g.ravel() for g in gs])
    np.testing.assert_allclose(u.ravel(), flat, rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dion_of_rank_one_moves_one_direction(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    first, other = (low_rank(rng, 16, 1, 16) for _ in range(2))
    tx = gk.project_by_dion(rank=16)
    u, _ = follow(tx, [first] * 60, dtype)
    np.testing.assert_allclose(np.linalg.svd(u)[1], [1, *[0] * 15], atol=1e-5)
    u, _ = follow(tx, [first] * 9 + [other] * 9, dtype)  # columns unused before
    assert cosine(u, other) > 0.5 and np.linalg.svd(u)[1][2] < 1e-5


def shaken(seed: int, gs: list[Any]) -> list[Any]:
    """The gradients, each entry off by as much as another processor may round it."""
    rng = np.random.default_rng(seed)
    return [g * (1 + 3e-7 * rng.uniform(-1, 1, g.shape)) for g in gs]


def near_zero(t: int) -> np.ndarray:
    """Gradients of which LAPACK takes a sign from an entry that is a rounding away from zero."""
    rng = np.random.default_rng(1 + t)
    rng.normal(size=16)
    return rng.normal(size=(14, 14))


def tied(t: int) -> np.ndarray:
    """A gradient of which singular vectors have entries of one size and of both signs."""
    return np.array([[3.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 1.0]])


def lacking(t: int) -> np.ndarray:
    """A gradient of rank one, of which no other singular vector is known."""
    return low_rank(np.random.default_rng(t), 8, 1, 6)


SHAKEN = {
    "kl_shampoo": (gk.precondition_by_kl_shampoo(), near_zero),
    "soap": (gk.precondition_by_soap(), near_zero),
    "svd": (gk.project_by_svd(gk.scale_by_adam(), rank=3), tied),
    "svd of few": (gk.project_by_svd(gk.scale_by_adam(), rank=4), lacking),
    "fira of few": (
        gk.project_by_fira(gk.scale_by_adam(), rank=4),
        lambda t: lacking(t).T,
    ),
    "range of few": (gk.project_by_range_finder(gk.scale_by_adam(), rank=4), lacking),
}


@pytest.mark.parametrize("name", SHAKEN)
def test_no_rounding_decides_a_sign(name: str) -> None:
    tx, gradient = SHAKEN[name]
    gs = [gradient(t) for t in range(2)]
    update, found = jax.jit(tx.update), []
    for seed in range(8):
        state = tx.init(jnp.zeros(gs[0].shape))
        for g in shaken(seed, gs):
            _, state = update(jnp.asarray(g, jnp.float32), state)
        found.append(jax.tree.leaves(state.bases))
    for bases in found:
        for a, b in zip(bases, found[0]):
            np.testing.assert_allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("n", [2, 7, 64])
def test_signs_have_a_margin_where_entries_tie(n: int) -> None:
    """Of axes, of what is constant, of differences, and of all signs."""
    # tested here with what depends on it

    i = np.arange(n)
    rows = [np.eye(n), np.ones((1, n)), np.eye(n)[1:] - np.eye(n)[:-1]]
    rows += [(-1.0) ** (i[None] // k) for k in (1, 2, 4)]
    p = np.concatenate(rows).T
    p = p / np.linalg.norm(p, axis=0)
    got = linalg.signed(jnp.asarray(p, jnp.float32))
    for sign in (1, -1):
        for seed in range(4):
            noise = 1e-6 * np.random.default_rng(seed).normal(size=p.shape)
            other = linalg.signed(jnp.asarray(sign * p + noise, jnp.float32))
            np.testing.assert_allclose(other, got, atol=1e-5)
    np.testing.assert_array_equal(got[:, :n], np.eye(n))  # so minus axes are no basis


@pytest.mark.parametrize(
    "make",
    [
        subspace.subspace_iteration,
        subspace.gaussian,
        subspace.grassmann_jump,
        subspace.rademacher,
    ],
)
def test_a_key_draws_the_same_in_every_dtype(make: Any) -> None:
    def draw(dtype: Any) -> np.ndarray:
        with jax.enable_x64(dtype == np.float64):
            basis, key = make(), jax.random.key(3)
            state = subspace.BasisState(basis.init((5, 2), dtype, key), ())
            (data,) = basis.renew([state], [jnp.eye(5, dtype=dtype)], key)
            return np.float64(basis.vectors(data, 5, dtype))

    np.testing.assert_allclose(draw(np.float32), draw(np.float64), atol=1e-5)


DEAD = {
    "soap": lambda: gk.soap(1.0, weight_decay=0.0),
    "kl_shampoo": gk.precondition_by_kl_shampoo,
    "shampoo": gk.precondition_by_shampoo,
    "one_sided_shampoo": gk.precondition_by_one_sided_shampoo,
}


@pytest.mark.parametrize("name", DEAD)
def test_rows_and_columns_without_gradient_do_not_move(name: str) -> None:
    """Not before statistics have full rank either, when most eigenvalues are zero."""
    gs = jax.random.normal(jax.random.key(0), (25, 12, 8), jnp.float32)
    gs, tx, p = gs.at[:, 5].set(0).at[:, :, 2].set(0), DEAD[name](), jnp.zeros((12, 8))

    @jax.jit
    def run(gs: jax.Array) -> jax.Array:
        step = lambda state, g: tx.update(g, state, p)[::-1]
        return jax.lax.scan(step, tx.init(p), gs)[1]

    us = np.abs(run(gs))
    assert us[:, 5].max() < 1e-5 * us.max()
    assert us[:, :, 2].max() < 1e-5 * us.max()


def test_kl_shampoo_makes_no_noise_of_large_gradients_of_rank_one() -> None:
    """Its least eigenvalues are numbers, and do not grow with the gradient."""
    g = 2.0**20 * np.outer([1, 2, 3, -1, 0, 2, 1, 1], [1, -2, 1, 3, 0, 1])
    tx = gk.precondition_by_kl_shampoo()
    got, want = (follow(tx, [g] * 30, d)[0] for d in (np.float32, np.float64))
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
