"""What methods that act in a few dimensions promise, each promise a named property.

A property sees a run of a method on random gradients, leaf by leaf. What does not need shapes or
arguments of its own is asked of `stream`, so that a method is compiled once for all of it.
"""

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
from gradkit import subspace

SIDES = {"fat": (4, 9), "square": (6, 6), "thin": (9, 4)}
Tree = dict[str, Any]
INSIDE: dict[str, Callable[..., Any]] = {  # these move nothing outside the basis
    "svd": gk.project_by_svd,
    "range_finder": gk.project_by_range_finder,
    "power_iteration": gk.project_by_power_iteration,
    "dct": gk.project_by_dct,
}
WHOLE: dict[str, Callable[..., Any]] = {  # these move all of a matrix
    "fira": gk.project_by_fira,
    "grass_walk": gk.project_by_grass_walk,
    "grass_jump": gk.project_by_grass_jump,
}
ALL = {**INSIDE, **WHOLE, "random": gk.project_by_random}
KEYED = sorted(
    {"range_finder", "power_iteration", "random", "grass_walk", "grass_jump"}
)
EVERY = {"dct": {}}  # it renews when it must
VECTORS = {
    "dct": subspace.dct().vectors,
    "random": subspace.rademacher().vectors,
}


@functools.cache
def made(name: str, inner: Any, rank: int, **changed: Any) -> Any:
    every = EVERY.get(name, {"every": 2})
    return ALL[name](inner or optax.trace(0.9), rank=rank, **{**every, **changed})


def make(name: str, inner: Any = None, rank: int = 2, **changed: Any) -> Any:
    """The method, with `inner` (momentum), renewed every second update."""
    return made(name, inner, rank, **changed)


def draw(*shapes: tuple[int, ...], seed: int = 0) -> list[jax.Array]:
    """Random float32 arrays."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes]


def stream(steps: int, shapes: Tree = SIDES) -> list[Tree]:
    """Random gradients, a tree for each step."""
    return [dict(zip(shapes, draw(*shapes.values(), seed=t))) for t in range(steps)]


def each(f: Callable[..., Any], run: list[Tree]) -> list[Tree]:
    """`f` of every leaf of every step, in NumPy: nothing is compiled for a shape."""
    return [jax.tree.map(lambda x: f(np.asarray(x)), tree) for tree in run]


jitted = functools.cache(jax.jit)  # several tests follow one method


def follow(tx: Any, gs: list[Any], state: Any = None) -> tuple[list[Any], list[Any]]:
    """The updates and the states after them, jitted."""
    tx = optax.with_extra_args_support(tx)
    update, us, states = jitted(tx.update), [], []
    state = tx.init(gs[0]) if state is None else state
    for g in gs:
        u, state = update(g, state, g)
        us.append(u)
        states.append(state)
    return us, states


def close(got: Any, want: Any, tolerance: float = 1e-4) -> None:
    """Equal within float32, relative to the largest entry."""
    found, wanted = map(jax.tree_util.tree_leaves_with_path, (got, want))
    for (path, a), (_, b) in zip(found, wanted, strict=True):
        largest = max(1e-30, float(np.max(np.abs(b), initial=0)))
        leaf = f"leaf {jax.tree_util.keystr(path)}"
        np.testing.assert_allclose(a, b, atol=tolerance * largest, err_msg=leaf)


def basis(name: str, p: Any, side: int) -> np.ndarray:
    """The vectors of the basis that a state keeps of a leaf, in float64."""
    return np.asarray(
        VECTORS[name](p, side, jnp.float32) if name in VECTORS else p, np.float64
    )


def random_orthogonal(rng: np.random.Generator, n: int) -> Any:
    return jnp.asarray(np.linalg.qr(rng.normal(size=(n, n)))[0], jnp.float32)


def momentum(gs: list[Any]) -> list[Any]:
    return follow(optax.trace(0.9), gs)[0]


@pytest.mark.parametrize("name", INSIDE)
def test_updates_have_the_rank_and_lie_in_the_basis(name: str) -> None:
    """rank_at_most, and no part outside the span of the basis."""
    us, states = follow(make(name), stream(4))
    for tree, state in zip(us, states):
        for leaf, sides in SIDES.items():
            u = np.asarray(tree[leaf], np.float64)
            u = u.T if sides[0] > sides[1] else u
            values = np.linalg.svd(u)[1]
            assert np.all(values[2:] < 1e-5 * values[0]), (leaf, values)
            p, atol = basis(name, state.bases[leaf], min(sides)), 1e-5 * values[0]
            np.testing.assert_allclose(p @ (p.T @ u), u, atol=atol, err_msg=leaf)


@pytest.mark.parametrize("of_rank", [0, 1, 4])
@pytest.mark.parametrize("rank", [1, 4])
@pytest.mark.parametrize("name", sorted(ALL.keys() - {"random"}))
def test_bases_are_orthonormal(name: str, rank: int, of_rank: int) -> None:
    """Also of gradients of lower rank, and of none."""
    rng = np.random.default_rng(0)
    low = lambda m, n: rng.normal(size=(m, of_rank)) @ rng.normal(size=(of_rank, n))
    draws = lambda: {k: jnp.asarray(low(*s), jnp.float32) for k, s in SIDES.items()}
    us, states = follow(make(name, rank=rank), [draws() for _ in range(3)])
    for tree, state in zip(us, states):
        for leaf, sides in SIDES.items():
            assert np.all(np.isfinite(tree[leaf])), leaf
            p = basis(name, state.bases[leaf], min(sides))
            np.testing.assert_allclose(p.T @ p, np.eye(rank), atol=1e-5, err_msg=leaf)


@pytest.mark.parametrize("drawn", [subspace.gaussian(), subspace.rademacher()])
def test_seeded_bases_are_near_orthonormal_and_of_their_seeds_alone(drawn: Any) -> None:
    tx = subspace.project(optax.identity(), 400, basis=drawn)
    _, (state,) = follow(tx, [draw((400, 500))[0]])
    p = np.asarray(drawn.vectors(state.bases, 400, jnp.float32), np.float64)
    assert abs(np.mean(p)) < 1e-3 and abs(np.mean(p**2) * 400 - 1) < 2e-2
    assert abs(np.mean((p.T @ p)[np.triu_indices(400, 1)])) < 1e-3
    assert abs(np.mean((p @ p.T)[np.triu_indices(400, 1)])) < 1e-3
    assert state.bases.shape == (400,)


@pytest.mark.parametrize("name", ALL)
def test_transposed_gradients_give_transposed_updates(name: str) -> None:
    """Also with others empty, on whose number alone the keys depend."""
    gs, empty = stream(4), np.zeros((0, 3), np.float32)
    turned = [{**dict.fromkeys(g, empty), "fat": np.transpose(g["fat"])} for g in gs]
    us, _ = follow(make(name), gs)
    got, _ = follow(make(name), turned)
    back = [{"fat": np.transpose(u["fat"])} for u in got]
    close(back, [{"fat": u["fat"]} for u in us])


@pytest.mark.parametrize("name", ["svd", "fira"])
def test_rotated_gradients_give_rotated_updates(name: str) -> None:
    """Momentum does not see the choice of signs, which is not rotated."""
    rng = np.random.default_rng(0)
    random = {k: [random_orthogonal(rng, n) for n in s] for k, s in SIDES.items()}
    if name == "fira":  # whose columns, of the large side, have norms of their own
        random["fat"][1], random["thin"][0] = np.eye(9), np.eye(9)
        random["square"][1] = np.eye(6)
    rotated = lambda xs: [
        {k: np.float32(q @ np.asarray(x[k]) @ r) for k, (q, r) in random.items()}
        for x in xs
    ]
    gs = stream(2)
    us, _ = follow(make(name), gs)
    turned, _ = follow(make(name), rotated(gs))
    close(turned, rotated(us))


def test_power_iteration_finds_the_singular_vectors_of_a_steady_gradient() -> None:
    u, _, vt = np.linalg.svd(draw((5, 8))[0], full_matrices=False)
    g = jnp.asarray((u * [8, 4, 0.5, 0.2, 0.1]) @ vt, jnp.float32)
    _, states = follow(make("power_iteration", every=1), [g] * 12)
    p = basis("power_iteration", states[-1].bases, 5)
    np.testing.assert_allclose(np.abs(np.diag(p.T @ u[:, :2])), 1, atol=1e-5)
    late = [basis("power_iteration", state.bases, 5) for state in states[-2:]]
    np.testing.assert_allclose(*late, atol=1e-5)  # order and signs stay


def test_range_finder_holds_nearly_as_much_as_the_best_basis() -> None:
    g = jnp.asarray(
        np.diag(0.8 ** np.arange(40)) @ np.asarray(draw((40, 60))[0]), jnp.float32
    )
    held = lambda name: np.linalg.norm(
        follow(make(name, optax.identity(), 5, scale=1.0), [g])[0][0]
    )
    assert 0.98 * held("svd") < held("range_finder") <= 1.00001 * held("svd")


@pytest.mark.parametrize("name", [*INSIDE, *WHOLE])
def test_at_full_rank_it_is_inner(name: str) -> None:
    """For momentum, which does not see a rotation, in a basis that stays."""
    gs = stream(4)
    still = {"overlap": 0.0} if name == "dct" else {"every": 99}
    us, _ = follow(make(name, rank=99, scale=1.0, **still), gs)
    close(us, momentum(gs), 2e-4)


@pytest.mark.parametrize("name", ["grass_walk", "grass_jump"])
def test_at_full_rank_moments_follow_the_basis(name: str) -> None:
    """Every basis spans everything: the mean that Adam keeps is the same mean in each."""
    gs = [draw((4, 6), seed=t)[0] for t in range(4)]
    adam = gk.scale_by_adam(b1=0.9, b2=0.5)
    _, states = follow(make(name, adam, rank=4, every=1, b2=0.5), gs)
    mean = jnp.zeros((4, 6))
    for g, state in zip(gs, states):
        mean = 0.9 * mean + 0.1 * g
        close(state.bases @ state.inner.mu, mean)


def test_rotated_moments_are_those_of_rotated_gradients() -> None:
    """Exactly, where EMAs have forgotten that they began at zero and nothing varies."""
    rng = np.random.default_rng(0)
    c, (g,) = random_orthogonal(rng, 4), draw((4, 6))
    adam = gk.scale_by_adam(0.9, b2=0.99)
    for t in (1, 3, 20):
        state = follow(adam, [(g,)] * t)[1][-1]
        want = follow(adam, [(c @ g,)] * t)[1][-1]
        change = subspace.BasisChange(g, c, -2)
        rotated = subspace.rotate_moments(0.9, b2=0.99)(state, (change,), jnp.int32(t))
        close((rotated.mu, rotated.nu), (want.mu, want.nu), 1e-3)


@pytest.mark.parametrize("name", sorted(ALL.keys() - {*KEYED}))
def test_the_order_of_leaves_does_not_matter(name: str) -> None:
    gs = [draw((4, 6), (4, 6), (6, 4), seed=t) for t in range(3)]
    us, _ = follow(make(name), gs)
    turned, _ = follow(make(name), [g[::-1] for g in gs])
    close([u[::-1] for u in turned], us)


@pytest.mark.parametrize("name", sorted(ALL.keys() - {*KEYED}))
def test_stacked_is_one_by_one(name: str) -> None:
    layers = [draw((7, 4), (7, 4), seed=t) for t in range(3)]
    inner, changed = optax.scale_by_sign(), EVERY.get(name, {"every": 1})
    changed = {"overlap": 1.0} if name == "dct" else changed
    apart, _ = follow(make(name, inner, **changed), layers)
    stacked = [jnp.stack(g) for g in layers]
    together, _ = follow(make(name, inner, batch_axes=(0,), **changed), stacked)
    close(together, [jnp.stack(u) for u in apart])


@pytest.mark.parametrize("name", KEYED)
def test_stacked_matrices_of_keyed_methods_are_apart(name: str) -> None:
    """Each draws for itself, and none is drawn the same."""
    g = jnp.stack(draw((7, 4)) * 2)
    us, (state,) = follow(make(name, batch_axes=(0,)), [g])
    assert np.all(np.isfinite(us))
    if name not in ("range_finder", "grass_walk"):  # which begin from the gradient
        assert np.any(state.bases[0] != state.bases[1])


@pytest.mark.parametrize("name", KEYED)
def test_the_same_key_gives_the_same_run(name: str) -> None:
    gs = stream(4)
    tx, first = make(name), make(name, key=1).init(gs[0])
    once, again, other = (follow(tx, gs, s)[0] for s in (None, None, first))
    close(again, once, 0)
    for leaf in SIDES:
        differ = [np.any(a[leaf] != np.asarray(b[leaf])) for a, b in zip(once, other)]
        assert any(differ), leaf


def renewed(tx: Any, gs: list[Any]) -> np.ndarray:
    """Which leaves have a new basis after each update but the first."""
    states = follow(tx, gs)[1]
    differ = lambda a, b: [
        bool(np.any(np.asarray(x) != y)) for x, y in zip(a.bases, b.bases)
    ]
    return np.array([differ(a, b) for a, b in itertools.pairwise(states)])


@pytest.mark.parametrize("leaves,every", [(4, 2), (2, 4), (5, 3), (1, 3)])
def test_staggered_leaves_share_the_cost(leaves: int, every: int) -> None:
    """Each once in `every` updates, and about `leaves / every` at each."""
    gs = [draw(*[(3, 12)] * leaves, seed=t) for t in range(2 * every + 1)]
    new = renewed(make("range_finder", every=every), gs)
    assert np.all(new[-every:].sum(axis=0) == 1)
    assert np.all(new[-every:].sum(axis=1) <= -(-leaves // every))


def test_a_basis_is_renewed_after_its_energy_drops() -> None:
    """At the third update, so that the fourth renews it; that of the other leaf stays."""
    wave = lambda k: np.cos(np.pi / 8 * k * (np.arange(8) + 0.5))
    leaf = lambda k: jnp.asarray(np.outer(wave(k), np.ones(9)), jnp.float32)
    gs = [[leaf(k), leaf(1)] for k in (1, 1, 5, 5, 5)]
    new = renewed(gk.project_by_dct(optax.identity(), rank=1), gs)
    assert new.tolist() == [[False, False], [False, False], [True, False], [False] * 2]


@pytest.mark.parametrize("make_tx", [gk.project_by_fira, gk.project_by_random])
def test_growth_is_limited(make_tx: Any) -> None:
    """From the second update on, whatever the gradient does; from zero it is free."""
    tx = make_tx(optax.scale_by_sign(), rank=1, growth=1.5, scale=0.0)
    if make_tx is gk.project_by_random:
        tx = make_tx(optax.scale_by_sign(), rank=1, growth=1.5)
    g = draw((4, 6))[0]
    us, _ = follow(tx, [0 * g, g, 0 * g + g[::-1] * 3, 1e4 * g, 1e-3 * g])
    sizes = [float(jnp.linalg.norm(u)) for u in us]
    assert sizes[0] == 0 < sizes[1]
    for last, size in itertools.pairwise(sizes[1:]):
        assert size <= 1.5 * last * (1 + 1e-5)


@pytest.mark.parametrize("axes", ["channels", "tensors"])
def test_apollo_keeps_the_directions_of_the_gradient(axes: str) -> None:
    (g,) = draw((4, 6))
    make_tx = gk.apollo if axes == "channels" else gk.apollo_mini
    (u,), _ = follow(make_tx(1.0, weight_decay=0.0), [{"w": g}])
    factors = np.asarray(-u["w"] / g)
    assert np.all(factors > 0)
    over = 0 if axes == "channels" else None
    np.testing.assert_allclose(np.ptp(factors, axis=over), 0, atol=1e-3 * factors.max())


def test_null_space_keeps_what_layers_make_of_past_inputs() -> None:
    inputs, (g,) = np.random.default_rng(0).normal(size=(6, 3)), draw((6, 4))
    first = jnp.asarray(np.linalg.svd(inputs)[0][:, :3], jnp.float32)
    tx = gk.project_by_null_space()
    state = tx.init(g)
    u, _ = tx.update(g, state, basis=first)
    np.testing.assert_allclose(inputs.T @ np.asarray(u), 0, atol=1e-5)
    close(tx.update(u, state, basis=first)[0], u)  # idempotent
    inside = first @ draw((3, 4))[0]  # of which rounding leaves something
    assert not jnp.any(tx.update(inside, state, basis=first)[0])
    wider = jnp.pad(first, ((0, 0), (0, 2)))  # zero columns are free
    close(tx.update(g, state, basis=wider)[0], u)
    with pytest.raises(ValueError, match="basis must have a matrix for each leaf"):
        tx.update(g, state)
    with pytest.raises(ValueError, match=r"must have the shape \(6, 'directions'\)"):
        tx.update(g, state, basis=first[:4])


def test_random_subspaces_are_near_isometric_and_never_left() -> None:
    """`P^T P` is near the identity, and all updates of a run span `dimension`."""
    tx = gk.project_by_random_subspace(optax.identity(), dimension=8)
    shapes = {"a": (40, 50), "b": (30,), "c": ()}
    draws = lambda t: dict(zip(shapes, draw(*shapes.values(), seed=t)))
    us, _ = follow(tx, [draws(t) for t in range(12)])
    flat = np.array([np.concatenate([np.ravel(x) for x in u.values()]) for u in us])
    values = np.linalg.svd(flat)[1]
    assert values[7] > 0.1 * values[0] and np.all(values[8:] < 1e-5 * values[0])
    twice, _ = tx.update(us[0], tx.init(us[0]))  # near a projection
    norm = lambda t: float(optax.tree.norm(t))
    error = norm(jax.tree.map(jnp.subtract, twice, us[0])) / norm(us[0])
    assert error < 0.3


def test_weight_norm_moves_lengths_and_directions_apart() -> None:
    p, g = draw((6, 4), (6, 4))
    along = jnp.sum(p * g, 0, keepdims=True) * p / jnp.sum(p * p, 0, keepdims=True)
    tx = gk.project_by_weight_norm(optax.identity(), rank=4)
    close(tx.update(along, tx.init(p), p)[0], along)  # each column longer or shorter
    across, _ = tx.update(g - along, tx.init(p), p)
    assert np.max(np.abs(np.sum(np.asarray(p * across), 0))) < 1e-3  # no length changes


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_non_finite_entry_counts_as_zero(name: str, bad: float) -> None:
    def with_entry(x: float) -> list[Tree]:
        (gs,) = each(np.copy, stream(1))
        for g in gs.values():
            g[1, 2] = x
        return [gs]

    got, _ = follow(make(name), with_entry(bad))
    want, _ = follow(make(name), with_entry(0.0))
    close(got, want)


def test_walks_and_jumps_are_as_long_as_they_say() -> None:
    """The angles between two bases: of a walk about `angle`, of a jump any."""
    gs = [draw((64, 80), seed=t)[0] for t in range(3)]
    angles = {}
    for name in ("grass_walk", "grass_jump"):
        states = follow(make(name, every=1), gs)[1]
        p, q = (basis(name, s.bases, 64) for s in states[1:])
        angles[name] = np.arccos(np.linalg.svd(p.T @ q)[1].clip(-1, 1))
    assert np.all((angles["grass_walk"] > 0.3) & (angles["grass_walk"] < 0.7))
    assert np.max(angles["grass_jump"]) > 1


ORTHONORMAL: dict[str, Callable[[], Any]] = {
    "svd": subspace.svd,
    "randomized_svd": subspace.randomized_svd,
    "subspace_iteration": subspace.subspace_iteration,
    "dct": subspace.dct,
    "grassmann_walk": subspace.grassmann_walk,
    "grassmann_jump": subspace.grassmann_jump,
}
DRAWN: dict[str, Callable[[], Any]] = {
    "gaussian": subspace.gaussian,
    "rademacher": subspace.rademacher,
}
SCHEDULES: dict[str, Callable[[], Any]] = {
    "every_n": lambda: subspace.every_n(2),
    "staggered": lambda: subspace.staggered(2),
    "on_energy_drop": lambda: subspace.on_energy_drop(0.9),
}
RESIDUALS: dict[str, Callable[[], Any]] = {
    "discard_residual": subspace.discard_residual,
    "pass_residual": subspace.pass_residual,
    "error_feedback": subspace.error_feedback,
    "fira_residual": subspace.fira_residual,
    "norm_matched": subspace.norm_matched,
    "norm_matched_tensorwise": lambda: subspace.norm_matched(axes=subspace.tensorwise),
}
REALIGNS: dict[str, Callable[[Any], Any]] = {
    "kept": lambda inner: None,
    "rotate_moments": lambda inner: subspace.rotate_moments(0.9, b2=0.99),
    "reset_moments": subspace.reset_moments,
}


def pairwise(*choices: Any) -> list[tuple[Any, ...]]:
    """Few of all combinations, with every two choices of different parts together in one."""
    every = list(itertools.product(*choices))
    left = {pair for each in every for pair in pairs(each)}
    found = []
    while left:
        best = max(every, key=lambda each: len(left & pairs(each)))
        found, left = [*found, best], left - pairs(best)
    return found


def pairs(choice: tuple[Any, ...]) -> set[Any]:
    return set(itertools.combinations(enumerate(choice), 2))


def among_all(*choices: Any) -> list[Any]:
    """All combinations; those that `pairwise` does not need by make check-full alone."""
    few = pairwise(*choices)
    every = [*itertools.product(*choices)]
    return [pytest.param(*x, marks=[pytest.mark.slow] * (x not in few)) for x in every]


@pytest.mark.parametrize(
    "basis,schedule,residual,realign,side",
    [  # half of them by make check-full alone
        pytest.param(*each, marks=[pytest.mark.slow] * (i % 2))
        for i, each in enumerate(
            pairwise(
                {**ORTHONORMAL, **DRAWN},
                SCHEDULES,
                RESIDUALS,
                REALIGNS,
                ("small", "large"),
            )
        )
    ],
)
def test_parts_combine(
    basis: str, schedule: str, residual: str, realign: str, side: Any
) -> None:
    """Any of each: finite updates, none where there is no gradient, and no new shapes."""
    adam = gk.scale_by_adam(0.9, b2=0.99)
    tx = subspace.project(
        adam,
        rank=2,
        basis={**ORTHONORMAL, **DRAWN}[basis](),
        schedule=SCHEDULES[schedule](),
        residual=RESIDUALS[residual](),
        realign=REALIGNS[realign](adam),
        side=side,
    )
    shapes = (3, 5), (4, 3)
    gs = [draw(*shapes, seed=t) for t in range(3)]
    us, states = follow(tx, [[np.zeros_like(g) for g in gs[0]], *gs])
    assert not any(map(np.any, us[0])) and all(map(np.any, us[-1]))
    for leaf in jax.tree.leaves((us, states)):
        assert np.all(np.isfinite(leaf))


OF_GRADIENT = ["svd", "randomized_svd", "subspace_iteration", "grassmann_walk"]


@pytest.mark.parametrize(
    "basis,side,residual",
    [  # what is remembered tells of the others, which are left to make check-full but for svd
        pytest.param(b, side, r, marks=[pytest.mark.slow] * is_slow)
        for side, bases in (("small", ORTHONORMAL), ("large", OF_GRADIENT))
        for b in bases
        for r in ("discard_residual", "pass_residual", "error_feedback")
        for is_slow in [r != "error_feedback" and b != "svd"]
    ],
)
def test_at_full_rank_parts_are_inner(basis: str, side: Any, residual: str) -> None:
    """And remember nothing. A large side has more directions, so that gradient is steady."""
    gs = [draw((4, 6), seed=t if side == "small" else 0)[0] for t in range(3)]
    tx = subspace.project(
        optax.trace(0.9),
        rank=4,
        basis=ORTHONORMAL[basis](),
        schedule=subspace.on_energy_drop(0.0),
        residual=RESIDUALS[residual](),
        side=side,
    )
    us, states = follow(tx, gs)
    close(us, momentum(gs), 2e-4)
    for memory in jax.tree.leaves([state.residual for state in states]):
        assert np.max(np.abs(memory)) < 1e-4


@pytest.mark.parametrize(
    "basis,schedule,side", among_all(ORTHONORMAL, SCHEDULES, ("small", "large"))
)
def test_error_feedback_loses_nothing(basis: str, schedule: str, side: Any) -> None:
    """What moved and what is remembered are all gradients, for an `inner` that is linear."""
    tx = subspace.project(
        optax.identity(),
        rank=2,
        basis=ORTHONORMAL[basis](),
        schedule=SCHEDULES[schedule](),
        residual=subspace.error_feedback(),
        side=side,
    )
    gs = [draw((4, 6), (7, 4), seed=t) for t in range(5)]
    us, states = follow(tx, gs)
    moved = [sum(us[1:], start=us[0]) for us in zip(*us)]
    given = [sum(gs[1:], start=gs[0]) for gs in zip(*gs)]
    close([u + e for u, e in zip(moved, states[-1].residual)], given)


def test_error_feedback_moves_all_of_a_steady_gradient() -> None:
    """In the long run: what is remembered stays bounded, while gradients add up."""
    g = draw((6, 8))[0]
    feedback = subspace.error_feedback()
    tx = subspace.project(
        optax.identity(), 2, schedule=subspace.every_n(1), residual=feedback
    )
    us, states = follow(tx, [g] * 60)
    size = float(jnp.linalg.norm(g))
    assert max(float(jnp.linalg.norm(s.residual)) for s in states) < 6 * size
    mean = sum(us[1:], start=us[0]) / len(us)
    assert float(jnp.linalg.norm(mean - g)) < 0.1 * size


def test_the_large_side_takes_less_memory() -> None:
    adam = gk.scale_by_adam()
    numbers = lambda side: sum(
        x.size
        for x in jax.tree.leaves(
            gk.project_by_svd(adam, rank=2, side=side).init(jnp.zeros((4, 9)))
        )
    )
    assert numbers("small") - numbers("large") == 2 * (9 - 4)


def test_principal_vectors_of_both_sides_are_singular_vectors() -> None:
    """Of the long side too, from the Gram matrix of the short one."""
    g = draw((4, 9))[0]
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    for side, vectors in (("small", u), ("large", vt.T)):
        tx = gk.project_by_svd(optax.identity(), rank=3, side=side)
        (state,) = follow(tx, [g])[1]
        p = np.asarray(state.bases)
        np.testing.assert_allclose(np.abs(p.T @ vectors[:, :3]), np.eye(3), atol=1e-4)
        assert np.all(np.take_along_axis(p, np.abs(p).argmax(0)[None], 0) > 0)


def test_moments_that_cannot_be_rotated_are_named() -> None:
    """Of an inner transform that projects once more."""
    tx, p = gk.project_by_grass_jump(gk.apollo_mini(0.1), rank=2), draw((4, 3))[0]
    with pytest.raises(ValueError, match=r"have the shape .* of a projected gradient"):
        tx.update(p, tx.init(p), p)
