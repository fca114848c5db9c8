"""Subspaces of any parts under JAX's transformations, and in trees like the parameters."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen
from jax.sharding import AxisType, PartitionSpec

import gradkit as gk
from gradkit import subspace

BASES: dict[str, Callable[[], Any]] = {
    "svd": subspace.svd,
    "randomized_svd": subspace.randomized_svd,
    "subspace_iteration": subspace.subspace_iteration,
    "dct": subspace.dct,
    "grassmann_walk": subspace.grassmann_walk,
    "grassmann_jump": subspace.grassmann_jump,
    "gaussian": subspace.gaussian,
    "rademacher": subspace.rademacher,
}
SCHEDULES: dict[str, Callable[[], Any]] = {
    "every_n": subspace.every_n,
    "staggered": subspace.staggered,
    "on_energy_drop": subspace.on_energy_drop,
}
RESIDUALS: dict[str, Callable[[], Any]] = {
    "discard_residual": subspace.discard_residual,
    "pass_residual": subspace.pass_residual,
    "error_feedback": subspace.error_feedback,
    "fira_residual": subspace.fira_residual,
    "norm_matched": subspace.norm_matched,
}
ADAM = gk.scale_by_adam()
REALIGNS: dict[str, Callable[[], Any]] = {
    "kept": lambda: None,
    "rotate_moments": subspace.rotate_moments,
    "reset_moments": lambda: subspace.reset_moments(ADAM),
}
PARAMS = {"a": jnp.ones((6, 4)), "layer": {"b": jnp.ones((3, 5))}}


def project(basis: str, schedule: str, residual: str, realign: str) -> Any:
    """The projection of these parts, around Adam."""
    return subspace.project(
        ADAM,
        rank=2,
        basis=BASES[basis](),
        schedule=SCHEDULES[schedule](),
        residual=RESIDUALS[residual](),
        realign=REALIGNS[realign](),
    )


def draw(seed: int) -> Any:
    """Gradients of `PARAMS`."""
    rng = np.random.default_rng(seed)
    draw = lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32)
    return jax.tree.map(draw, PARAMS)


NAMES = [[*parts] for parts in (BASES, SCHEDULES, RESIDUALS, REALIGNS)]


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("i", range(9))
def test_one_of_each_part_in_shard_map(i: int, given: bool) -> None:
    """The state is made inside, or given; nothing is compiled."""
    places = (
        i % 8,
        i % 3,
        i % 5,
        i // 3,
    )  # so that each update schedule meets each realignment
    tx = project(*(names[place] for names, place in zip(NAMES, places)))
    both = jax.tree.map(lambda x: jnp.stack([x, x]), PARAMS)

    def own(p: Any, state: Any = None) -> Any:
        p, state = jax.tree.map(lambda x: x[0], (p, state))
        step = lambda state, _: tx.update(p, state)[::-1]
        state = tx.init(p) if state is None else state
        return jax.tree.map(lambda x: x[None], jax.lax.scan(step, state, None, 2))

    mesh, parts = jax.make_mesh((2,), ("x",), (AxisType.Auto,)), PartitionSpec("x")
    spread = jax.shard_map(own, mesh=mesh, in_specs=parts, out_specs=parts)
    jax.eval_shape(spread, both, *[jax.vmap(tx.init)(both)] * given)


@pytest.mark.parametrize("basis", ["svd", "grassmann_walk"])
def test_a_batch_is_a_loop(basis: str) -> None:
    """Also where one of it waits for a gradient, and one has its basis already."""
    tx = project(basis, "every_n", "discard_residual", "kept")
    gs = [jax.tree.map(jnp.zeros_like, PARAMS), draw(0)], [draw(1), draw(2)]
    states = [tx.init(PARAMS) for _ in range(2)]
    stack = lambda ts: jax.tree.map(lambda *x: jnp.stack(x), *ts)
    batch = stack(states)
    one, all_at_once = jax.jit(tx.update), jax.jit(jax.vmap(tx.update))
    for now in gs:
        run = [one(g, state) for g, state in zip(now, states)]
        us, batch = all_at_once(stack(now), batch)
        states = [state for _, state in run]
        for got, want in zip(
            jax.tree.leaves((us, batch)),
            jax.tree.leaves(tuple(stack(x) for x in zip(*run))),
        ):
            np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("residual", RESIDUALS)
def test_what_is_kept_is_a_tree_like_the_parameters(residual: str) -> None:
    """So that a tree of anything for each parameter reaches bases, residuals and moments."""
    tx = project("svd", "every_n", residual, "kept")
    state: Any = tx.init(PARAMS)
    names = {"a": "a", "layer": {"b": "b"}}
    mapped: Any = optax.tree_map_params(tx, lambda _, name: name, state, names)
    kept = residual not in ("discard_residual", "pass_residual")
    assert mapped.residual == (names if kept else ())
    assert (mapped.bases, mapped.found) == (names, names)
    assert (mapped.inner.mu, mapped.inner.nu) == (names, names)
    assert mapped.schedule == mapped.key == ()


def test_inner_sees_names() -> None:
    """And what it keeps of some alone is rotated with their bases."""
    adam = lambda: gk.scale_by_adam(b2=0.5)
    inner = gk.route({"layer": optax.identity()}, default=adam())
    parts = {
        "basis": subspace.grassmann_jump(),
        "schedule": subspace.every_n(1),
        "realign": subspace.rotate_moments(b2=0.5),
    }
    tx = subspace.project(inner, 2, **parts)
    alone = subspace.project(adam(), 2, **parts)
    state, of_a = tx.init(PARAMS), alone.init({"a": PARAMS["a"]})
    update, update_alone = jax.jit(tx.update), jax.jit(alone.update)
    for t in range(3):
        g = draw(t)
        u, state = update(g, state)
        _, of_a = update_alone({"a": g["a"]}, of_a)
    b = state.bases["layer"]["b"]
    np.testing.assert_allclose(u["layer"]["b"], b @ (b.T @ g["layer"]["b"]), atol=1e-5)
    moments = [x for x in jax.tree.leaves(state.inner) if x.shape == (2, 6)[::-1]]
    assert len(moments) == 2 and len(jax.tree.leaves(of_a.inner)) == 3


def test_parameters_of_linen_with_their_sharding() -> None:
    """A basis has another shape, so it is not in their boxes; the update is."""
    box = lambda x: linen.Partitioned(x, names=("x", "y"))
    params = {"w": box(PARAMS["a"])}
    for make in (gk.project_by_fira, gk.project_by_weight_norm):
        tx = make(ADAM, rank=2)
        u, state = tx.update(params, tx.init(params), params)
        assert u["w"].names == ("x", "y")
        plain = {"w": PARAMS["a"]}
        want, plain_state = tx.update(plain, tx.init(plain), plain)
        np.testing.assert_array_equal(u["w"].value, want["w"])
        assert jax.tree.structure(state) == jax.tree.structure(plain_state)


@pytest.mark.parametrize(
    "factory", [gk.galore, gk.fira, gk.grass_walk, gk.snsm, gk.lorp]
)
def test_a_derivative_is_refused_by_name(factory: Any) -> None:
    tx = factory()
    total = lambda t: sum(jnp.sum(x) for x in jax.tree.leaves(t))
    end = lambda g: total(tx.update(g, tx.init(PARAMS), PARAMS)[0])
    with pytest.raises(TypeError, match=f"gradkit.{factory.__name__}: .*derivative"):
        jax.grad(end)(draw(0))


@pytest.mark.parametrize("basis", ["dct", "grassmann_jump"])
def test_a_derivative_of_what_factors_no_gradient(basis: str) -> None:
    """Of two updates of which the second keeps the basis, as differences have it."""
    residual = subspace.fira_residual()
    tx = subspace.project(optax.trace(0.9), 2, basis=BASES[basis](), residual=residual)

    @jax.jit
    @jax.value_and_grad
    def end(size: Any) -> Any:
        state, moved = tx.init(PARAMS["a"]), 0.0
        for g in (draw(0)["a"], draw(1)["a"]):
            u, state = tx.update(g + size * jnp.square(g), state)
            moved += jnp.sum(jnp.sin(u))
        return moved

    h = 1e-3
    difference = (end(0.1 + h)[0] - end(0.1 - h)[0]) / (2 * h)
    np.testing.assert_allclose(end(0.1)[1], difference, rtol=2e-2)


@pytest.mark.parametrize(
    "kind,part,name",
    [
        *(("basis", part, name) for name, part in BASES.items()),
        *(("schedule", part, name) for name, part in SCHEDULES.items()),
        *(("residual", part, name) for name, part in RESIDUALS.items()),
        ("realign", subspace.rotate_moments, "rotate_moments"),
        ("realign", subspace.reset_moments, "reset_moments"),
    ],
)
def test_a_part_that_was_not_called(kind: str, part: Any, name: str) -> None:
    said = (
        rf"gradkit.subspace.project: {kind} must be .*, got {name}. Call it: {name}\(\)"
    )
    with pytest.raises(ValueError, match=said):
        subspace.project(ADAM, 2, **{kind: part})


@pytest.mark.parametrize(
    "factory", [gk.galore, gk.apollo, gk.fira, gk.lorp, gk.snsm, gk.grass_jump]
)
def test_a_state_of_another_rank(factory: Any) -> None:
    """It would run, and act in as many directions as the state has."""
    said = rf"gradkit.{factory.__name__}: state must be .* for leaf .*bases/a"
    state = factory(rank=3).init(PARAMS)
    for run in (lambda f: f, jax.jit):
        with pytest.raises(ValueError, match=said):
            run(factory(rank=4).update)(draw(0), state, PARAMS)


def test_a_state_of_other_parameters() -> None:
    tx = subspace.project(ADAM, 2, residual=subspace.error_feedback())
    wider = {**PARAMS, "a": jnp.ones((8, 4))}
    for other in ({"a": PARAMS["a"]}, wider):
        with pytest.raises(
            ValueError, match=r"gradkit.subspace.project: state must be"
        ):
            tx.update(PARAMS, tx.init(other))
    for residual in (subspace.discard_residual(), subspace.fira_residual()):
        tx2 = subspace.project(ADAM, 2, residual=residual)
        for one, other in ((tx, tx2), (tx2, tx)):
            with pytest.raises(
                ValueError, match=r"gradkit.subspace.project: state must be"
            ):
                one.update(PARAMS, other.init(PARAMS))


@pytest.mark.parametrize(
    "factory", [gk.project_by_grass_walk, gk.project_by_grass_jump]
)
def test_moments_that_are_codes_are_not_rotated(factory: Any) -> None:
    """They would be turned as if they were numbers."""
    tx = factory(gk.store_by_int8(ADAM, block=4))
    said = rf"gradkit.{factory.__name__}: the moments mu and nu of inner must be real"
    with pytest.raises(ValueError, match=said):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_moments_in_bfloat16_are_rotated() -> None:
    tx = gk.project_by_grass_jump(optax.scale_by_adam(mu_dtype="bfloat16"), every=1)
    with jax.numpy_dtype_promotion("standard"):
        state = tx.init(PARAMS)
        for _ in range(2):
            _, after = tx.update(PARAMS, state, PARAMS)
            same = jax.tree.map(lambda x, y: x.dtype == y.dtype, state, after)
            assert all(jax.tree.leaves(same))
            state = after


@pytest.mark.parametrize(
    "factory", [gk.project_by_dion, gk.retract_by_stiefel, gk.snsm, gk.galore, gk.fira]
)
def test_the_largest_numbers_leave_no_trace(factory: Any) -> None:
    """Sums of them are no numbers, in updates or in what is remembered."""
    tx, signs = factory(), jnp.where(jnp.arange(24).reshape(6, 4) % 3 > 0, 1.0, -1.0)
    params = {"dense": {"kernel": jnp.eye(6, 4)}}
    for spike in (3e38 * signs, jnp.zeros((6, 4)).at[0, 0].set(3e38)):
        state = tx.init(params)
        for g in (spike, signs, signs):
            u, state = tx.update({"dense": {"kernel": g}}, state, params)
            assert jnp.all(jnp.isfinite(u["dense"]["kernel"]))
        for x in jax.tree.leaves(state):
            assert not jnp.issubdtype(x.dtype, jnp.floating) or jnp.all(jnp.isfinite(x))
