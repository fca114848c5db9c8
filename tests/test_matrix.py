"""The matrix engine, and the promises of the methods that stand on it."""

import functools
import itertools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit._core.matrix import linalg, stacks
from gradkit._core.matrix.polar import polar_factor

BAND = 0.68, 1.21  # where five Newton-Schulz steps leave singular values above 1/650
SIDES = [(6, 6), (4, 9), (9, 4), (1, 7), (5, 1)]
polar = functools.partial(polar_factor, eps=0.0)
orthogonal = functools.partial(stacks.map_fat, polar)
basis = functools.partial(linalg.principal_basis, rank=3)


def rotation(rng: np.random.Generator, n: int) -> np.ndarray:
    """A random orthogonal matrix."""
    return np.linalg.qr(rng.normal(size=(n, n)))[0]


def matrix(rng: np.random.Generator, sides: tuple[int, int], worst: float = 1e-2):
    """A random matrix with a random spectrum, from 1 down to `worst`."""
    rows, cols = sides
    k = min(sides)
    spectrum = np.exp(rng.uniform(np.log(worst), 0, k))
    return (rotation(rng, rows)[:, :k] * spectrum) @ rotation(rng, cols)[:k]


def draw(*shapes: tuple[int, ...], seed: int = 0) -> list[jax.Array]:
    """Random float32 arrays."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]


def close(got, want, tolerance: float = 2e-5) -> None:
    """Equal within float32, relative to the largest entry."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(
            a, b, atol=tolerance * max(1, np.max(np.abs(b), initial=0))
        )


def steps(tx, gs):
    """What a transform makes of a list of gradients, jitted."""
    tx = optax.with_extra_args_support(tx)
    update, state, us = jax.jit(tx.update), tx.init(gs[0]), []
    for g in gs:
        u, state = update(g, state, g)
        us.append(u)
    return us, state


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("seed", range(4))
def test_polar_keeps_singular_vectors_and_levels_singular_values(sides, seed) -> None:
    g = matrix(np.random.default_rng(seed), sides)
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    with jax.enable_x64(True):
        core = u.T @ np.asarray(orthogonal(jnp.asarray(g))) @ vt.T
    values = np.diag(core)
    assert np.all((values > BAND[0]) & (values < BAND[1])), values
    np.testing.assert_allclose(core, np.diag(values), atol=1e-9)
    exact = np.linalg.norm(
        core - np.eye(len(core)), 2
    )  # distance from the polar factor
    assert exact < 1 - BAND[0]


@pytest.mark.parametrize("sides", SIDES)
def test_polar_turns_with_its_matrix(sides) -> None:
    rng = np.random.default_rng(0)
    g, left, right = (
        matrix(rng, sides),
        rotation(rng, sides[0]),
        rotation(rng, sides[1]),
    )
    with jax.enable_x64(True):
        u = orthogonal(jnp.asarray(g))
        turned = orthogonal(jnp.asarray(left @ g @ right))
        np.testing.assert_allclose(turned, left @ u @ right, atol=1e-9)
        np.testing.assert_allclose(orthogonal(jnp.asarray(g.T)), u.T, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e25])
def test_polar_and_basis_do_not_see_the_scale(scale: float) -> None:
    (g,) = draw((4, 9))
    tx = gk.normalize_by_polar(eps=0.0)
    close(tx.update(g * jnp.float32(scale), ())[0], tx.update(g, ())[0])
    close(basis(g * jnp.float32(scale)), basis(g), 1e-4)


def test_polar_of_zero_is_zero() -> None:
    g = {"zero": jnp.zeros((3, 4)), "empty": jnp.zeros((0, 4)), "none": None}
    u, _ = gk.normalize_by_polar(eps=0.0).update(g, ())
    assert not jnp.any(u["zero"]) and u["empty"].shape == (0, 4) and u["none"] is None


def test_layers_that_do_not_narrow_gain_alike_whatever_their_width() -> None:
    """The root mean square of what an update adds is at most about that of its inputs."""
    for rows, cols in [(8, 8), (8, 32), (16, 128)]:
        u, _ = gk.normalize_by_polar().update(draw((rows, cols))[0], ())
        gain = np.linalg.norm(np.asarray(u), 2) * np.sqrt(rows / cols)
        assert BAND[0] < gain < BAND[1]


@pytest.mark.parametrize("rank", [1, 3, 6])
@pytest.mark.parametrize("of_rank", [0, 2, 6])
def test_bases_are_orthonormal_and_signed(rank: int, of_rank: int) -> None:
    rng = np.random.default_rng(0)
    g = rng.normal(size=(6, of_rank)) @ rng.normal(size=(of_rank, 8))
    p = np.asarray(linalg.principal_basis(jnp.asarray(g, jnp.float32), rank))
    np.testing.assert_allclose(p.T @ p, np.eye(rank), atol=1e-5)
    assert np.all((2 + np.cos(1 + np.arange(6))) @ p > 0)
    kept = np.linalg.norm(p.T @ g) ** 2
    best = np.sum(np.linalg.svd(g)[1][:rank] ** 2)
    np.testing.assert_allclose(kept, best, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("f", [polar, basis])
def test_stacked_is_one_by_one(f) -> None:
    """What accelerators run is what a CPU runs, and calls `f` once per distinct shape."""
    shapes = [(4, 6), (2, 4, 6), (5, 5), (4, 6), (0, 4, 6), (2, 2, 5, 5), (3, 0)]
    xs, calls = draw(*shapes), []

    def counted(x: jax.Array) -> jax.Array:
        calls.append(x.shape)
        return f(x)

    stacked = stacks.map_stacks(counted, xs)
    assert calls == [(4, 4, 6), (5, 5, 5), (1, 3, 0)]
    one_by_one = jax.jit(lambda xs: stacks.map_shapes(f, xs))(xs)
    assert [x.shape for x in stacked] == [x.shape for x in one_by_one]
    close(stacked, one_by_one, 1e-4)


def test_all_leaves_are_split_off_by_one_kernel() -> None:
    """Slices at places known to XLA would be compiled one by one: time for each leaf."""
    xs = draw(*[(4, 6)] * 9)
    compiled = jax.jit(lambda xs: stacks.map_shapes(polar, xs)).lower(xs).compile()
    assert " slice(" not in compiled.as_text()


METHODS = {
    "polar": gk.normalize_by_polar,
    "svd": functools.partial(gk.project_by_svd, gk.scale_by_adam(), rank=2, every=2),
    "fira": functools.partial(gk.project_by_fira, gk.scale_by_adam(), rank=2, every=2),
}
EACH = [  # of Fira tests/test_laws_of_subspace.py asks the same
    pytest.param(k, marks=[pytest.mark.slow] * (k == "fira")) for k in METHODS
]


@pytest.mark.parametrize("name", EACH)
def test_the_order_of_leaves_does_not_matter(name: str) -> None:
    gs = [draw((4, 6), (6, 4), (4, 6), (5, 5), seed=t) for t in range(3)]
    us, _ = steps(METHODS[name](), gs)
    turned, _ = steps(METHODS[name](), [g[::-1] for g in gs])
    close([u[::-1] for u in turned], us, 1e-4)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", EACH)
def test_batch_axes_are_matrices_of_their_own(name: str, axis: int) -> None:
    """Scanned layers are what the layers are, wherever the layer axis is."""
    layers = [draw((7, 4), (7, 4), (7, 4), seed=t) for t in range(3)]
    apart, _ = steps(METHODS[name](), layers)
    stacked = [jnp.stack(g, axis) for g in layers]
    together, _ = steps(METHODS[name](batch_axes=(axis,)), stacked)
    close(together, [jnp.stack(u, axis) for u in apart], 1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_leaves_with_too_few_axes_are_named(name: str) -> None:
    tx, g = METHODS[name](batch_axes=(0,)), {"w": jnp.zeros((3, 4))}
    with pytest.raises(ValueError, match=r"leaf w must have at least 2 axes besides"):
        tx.update(g, tx.init(g))


@pytest.mark.parametrize("name", METHODS)
def test_an_infinite_entry_costs_no_more_than_a_finite_one(name: str) -> None:
    """Singular value decompositions of infinities do not end on a CPU; none is taken."""
    tx, (g,) = METHODS[name](), draw((64, 256))
    update, state = jax.jit(tx.update), tx.init(g)
    jax.block_until_ready(update(g, state))
    start = time.monotonic()
    for bad in (jnp.inf, jnp.nan):
        u, new = jax.block_until_ready(update(g.at[3, 5].set(bad), state))
        assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves((u, new)))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("sides", SIDES[:3])
def test_projections_have_their_rank_and_at_full_rank_change_nothing(sides) -> None:
    gs = [draw(sides, seed=t)[0] for t in range(4)]
    for rank in (1, 3):
        us, _ = steps(gk.project_by_svd(gk.scale_by_adam(), rank=rank, every=2), gs)
        for u in us:
            values = np.linalg.svd(np.asarray(u, np.float64))[1]
            assert np.all(values[rank:] < 1e-5 * values[0]), values
    for make in (gk.project_by_svd, gk.project_by_fira):
        us, _ = steps(make(optax.identity(), rank=99, every=2, scale=1.0), gs)
        close(us, gs)
        us, _ = steps(make(optax.trace(0.9), rank=99, every=99, scale=1.0), gs)
        close(us, steps(optax.trace(0.9), gs)[0], 1e-4)


@pytest.mark.parametrize("sides", SIDES[:3])
def test_galore_keeps_as_many_numbers_as_its_paper_says(sides) -> None:
    """Table 1: `m r + 2 n r` of a matrix with `m <= n`; Fira keeps one more."""
    g, rank = draw(sides)[0], 3
    m, n = sorted(sides)
    kept = lambda tx: [x for x in jax.tree.leaves(tx.init(g)) if x.ndim]
    numbers = lambda tx: sum(x.size for x in kept(tx) if x.dtype == g.dtype)
    adam = gk.scale_by_adam()
    assert numbers(gk.project_by_svd(adam, rank=rank)) == m * rank + 2 * n * rank
    assert numbers(gk.project_by_fira(adam, rank=rank)) == m * rank + 2 * n * rank + 1


def test_bases_are_renewed_when_due_and_not_before() -> None:
    tx = gk.project_by_svd(optax.identity(), rank=2, every=3)
    state, seen = tx.init(jnp.zeros((4, 6))), []
    for t in range(7):
        _, state = tx.update(draw((4, 6), seed=t)[0], state)
        seen.append(state.bases)
    changed = [bool(jnp.any(a != b)) for a, b in itertools.pairwise(seen)]
    assert changed == [False, False, True, False, False, True]


def outside(u: jax.Array, state) -> float:
    """The norm of what lies outside the basis."""
    p = state.bases
    return float(jnp.linalg.norm(u - p @ (p.T @ u)))


def test_fira_moves_all_of_the_matrix_and_limits_its_growth() -> None:
    tx = gk.project_by_fira(optax.scale_by_sign(), rank=1, growth=1.05, scale=1.0)
    state, sizes = tx.init(jnp.zeros((4, 6))), []
    for t, share in enumerate([0.0, 1e-2, 1.0, 1.0, 1e-4, 1e-4]):
        first, rest = draw((4, 6), (4, 6), seed=t)
        p = state.bases if t else jnp.zeros((4, 1))
        u, state = tx.update(share * rest + p @ (p.T @ first) if t else rest * 0, state)
        sizes.append(outside(u, state))
    assert sizes[0] == 0 < sizes[1]  # from nothing it may grow freely
    np.testing.assert_allclose(sizes[2] / sizes[1], 1.05, rtol=1e-3)
    np.testing.assert_allclose(sizes[3] / sizes[2], 1.05, rtol=1e-3)
    assert sizes[4] < sizes[3] / 2  # it shrinks at once


@pytest.mark.parametrize("path", ["attn/query/kernel", "layers/0/mlp/up", "blocks/w"])
def test_hidden_matrices_go_to_muon(path: str) -> None:
    assert goes_to_muon(path, (4, 6))
    assert not goes_to_muon(path, (4,))


@pytest.mark.parametrize(
    "path",
    [
        "embed/embedding",
        "Embed_0/embedding",
        "pos_embed",
        "unembed/kernel",
        "lm_head/kernel",
        "head",
        "readout/kernel",
        "wte/weight",
    ],
)
def test_embeddings_and_readouts_go_to_adam(path: str) -> None:
    assert not goes_to_muon(path, (4, 6))


def test_heads_of_attention_are_no_readout() -> None:
    assert goes_to_muon("MultiHeadDotProductAttention_0/query/kernel", (4, 6))
    assert goes_to_muon("multi_head/query", (4, 6))


def goes_to_muon(path: str, shape: tuple[int, ...]) -> bool:
    """Muon's updates are not Adam's signs."""
    g = {path: draw(shape)[0]}
    tx = gk.muon(1.0, adam_lr_ratio=1.0)
    u = tx.update(g, tx.init(g), g)[0][path]
    return not bool(jnp.allclose(jnp.abs(u), 1, atol=1e-4))


@pytest.mark.parametrize("make", [gk.muon, gk.galore, gk.fira])
def test_one_learning_rate_moves_all_parameters(make) -> None:
    g = dict(zip(["w", "bias", "embed"], draw((4, 6), (6,), (8, 4))))
    (once,), _ = steps(make(1e-2, weight_decay=0.1), [g])
    (twice,), _ = steps(make(lambda step: 2e-2, weight_decay=0.1), [g])
    close(twice, jax.tree.map(lambda u: 2 * u, once))


def test_more_leaves_than_a_stack_holds_come_back_in_order():
    leaves = [jnp.full((1 + i % 2, 2, 3), float(i)) for i in range(130)]
    found = jax.jit(lambda xs: stacks.map_shapes(lambda x: 2 * x, xs))(leaves)
    for x, y in zip(leaves, found, strict=True):
        np.testing.assert_array_equal(y, 2 * x)


def test_a_program_does_not_grow_with_its_items() -> None:
    """Equal items are worked by one program, others by their own."""
    items = [(jnp.full((2, 2), i), jnp.ones(2)) for i in range(5)] + [
        (jnp.ones((1, 2)), jnp.ones(2))
    ]
    seen: list[Any] = []

    def product(item: Any) -> Any:
        seen.append(item)
        return {"y": item[0] @ item[1]}

    groups = stacks.groups_of(items)
    ys = [
        stacks.map_stack(lambda *x: product(x), *stack)
        for stack in stacks.stack(groups, items)
    ]
    found = stacks.unstack(groups, ys)
    assert len(groups) == 2 and len(seen) == 2
    for (x, y), got in zip(items, found):
        np.testing.assert_array_equal(got["y"], x @ y)
