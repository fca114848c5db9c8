"""Matrix methods within JAX's own transformations: derivatives, batches over devices, maps of state."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.test_util import check_grads

import gradkit as gk
from gradkit._core import derivative, norms
from gradkit._core.matrix import lapack, roots

RNG = np.random.default_rng(0)
BASIS = np.linalg.qr(RNG.normal(size=(6, 6)))[0]
SPECTRA = [range(1, 7), [1, 1, 1, 2, 2, 2], [1] * 6, [0, 0, 0, 1, 1, 3]]


@pytest.mark.parametrize("spectrum", SPECTRA, ids=str)
@pytest.mark.parametrize("power", [0.25, 1.0])
def test_an_inverse_root_has_its_derivative(spectrum: Any, power: float) -> None:
    """Where eigenvalues are equal or zero too, by the matrix, the power and the damping."""
    with jax.enable_x64(True):
        x = jnp.asarray(BASIS * np.sqrt(np.array(spectrum, np.float64)))
        f = lambda x, *args: roots.inverse_root(x @ x.mT, *args)
        check_grads(f, (x, power, 0.1), 1, ("fwd", "rev"), eps=1e-5)
        batch = jnp.stack([x, 2 * x]), power, 0.1
        check_grads(jax.vmap(f, (0, None, None)), batch, 1, ("rev",), eps=1e-5)


@pytest.mark.parametrize("damping", [0.0, 1e-6])
def test_the_derivative_of_a_root_of_nothing_is_zero(damping: float) -> None:
    f = lambda a: jnp.sum(roots.inverse_root(a, 0.25, damping))
    np.testing.assert_array_equal(jax.grad(f)(jnp.zeros((3, 3))), 0)


def solved(**options: bool) -> Callable[[jax.Array, jax.Array], jax.Array]:
    def f(a: jax.Array, b: jax.Array) -> jax.Array:
        b = b if options.get("left_side") else b.mT
        return lapack.solve_triangular(a, b, **options)

    return f


@pytest.mark.parametrize(
    "f",
    [
        lambda a, b: lapack.solve_positive((a + a.mT) / 2, b),
        solved(left_side=True, lower=True),
        solved(left_side=True, transpose_a=True),
        solved(lower=True, transpose_a=True),
        solved(),
        lambda a, b: roots.largest_eigenvalue((a + a.mT) / 2) * b[0, 0],
        lambda a, b: roots.largest_eigenvalue(jnp.kron(a + a.mT, jnp.eye(8))) * b[0, 0],
        lambda a, b: norms.along(a, (-2, -1)) * b,
    ],
)
def test_what_is_done_by_lapack_has_its_derivative(f: Any) -> None:
    with jax.enable_x64(True):
        x, b = (jnp.asarray(RNG.normal(size=(2, 5, 5))) for _ in range(2))
        a = x @ x.mT + jnp.broadcast_to(jnp.eye(5), x.shape)
        for run in (lambda a, b: f(a[0], b[0]), jax.jit(jax.vmap(f))):
            check_grads(run, (a, b), 1, ("rev",), eps=1e-5)


def test_a_root_has_no_derivative_at_zero() -> None:
    assert jax.grad(derivative.root)(0.0) == 0
    np.testing.assert_allclose(jax.grad(derivative.root)(4.0), 0.25)
    flat = jax.grad(lambda x: jnp.sum(norms.along(x, -1)))(jnp.zeros((2, 3)))
    np.testing.assert_array_equal(flat, 0)


def moved(tx: Any, grads: Sequence[jax.Array], state: Any) -> Any:
    """What updates come to, one after the other."""
    total = 0.0
    for g in grads:
        updates, state = tx.update({"w": g}, state)
        total += jnp.sum(jnp.sin(updates["w"]))
    return total


@pytest.mark.parametrize("name", ["shampoo", "one_sided_shampoo", "inverse_free_kfac"])
def test_updates_have_the_derivative_that_differences_show(name: str) -> None:
    with jax.enable_x64(True):
        tx = getattr(gk, f"precondition_by_{name}")(damping=0.1)
        grads = [jnp.asarray(g) for g in RNG.normal(size=(3, 4, 5))]
        state = tx.init({"w": grads[0]})
        end = jax.jit(lambda *gs: moved(tx, gs, state))
        check_grads(end, grads, 1, ("rev",), eps=1e-5)


@pytest.mark.parametrize("name", ["soap", "precondition_by_kl_shampoo", "dion"])
def test_what_has_no_derivative_is_named_as_called(name: str) -> None:
    tx = getattr(gk, name)()
    grads = [jnp.asarray(g, jnp.float32) for g in RNG.normal(size=(3, 4, 4))]
    p = {"w": grads[0]}
    state = tx.init(p)

    def two(g: jax.Array) -> Any:
        total, now = 0.0, state
        for _ in range(2):
            updates, now = tx.update({"w": g}, now, p)
            total += jnp.sum(updates["w"])
        return total

    for f in (jax.grad(two), jax.jit(jax.grad(two)), jax.grad(jax.jit(two))):
        with pytest.raises(TypeError, match=f"^gradkit.{name}: .*stop_gradient"):
            f(grads[1])


@pytest.mark.parametrize("name", ["soap", "kl_shampoo"])
@pytest.mark.parametrize("size", [0.0, 1.0])
def test_one_update_in_kept_bases_has_a_derivative(name: str, size: float) -> None:
    tx = getattr(gk, f"precondition_by_{name}")()
    state = tx.init({"w": jnp.zeros((4, 4))})
    for g in jnp.asarray(RNG.normal(size=(3, 4, 4)), jnp.float32):
        _, state = tx.update({"w": g}, state)
    slope = jax.grad(lambda g: moved(tx, [g], jax.lax.stop_gradient(state)))
    found = slope(size * jnp.ones((4, 4)))
    assert jnp.all(jnp.isfinite(found)) and (size == 0 or jnp.any(found))


@pytest.mark.parametrize(
    "name,taken,kind",
    [
        ("muon", "data", AxisType.Auto),
        ("muon", "model", AxisType.Explicit),
        ("muon", ("data", "model"), AxisType.Auto),
        ("dion", ("data", "model"), AxisType.Explicit),
        ("shampoo", "model", AxisType.Auto),
        ("soap", "data", AxisType.Explicit),
    ],
)
def test_agents_over_devices_are_agents_in_a_loop(name, taken, kind) -> None:
    """Whatever axes of the mesh the caller has spread them over."""
    tx, shapes = getattr(gk, name)(), {"a": (4, 6), "b": (4, 6)}

    def draw() -> dict[str, jax.Array]:
        drawn = {k: RNG.normal(size=(4, *shape)) for k, shape in shapes.items()}
        return {k: jnp.asarray(x, jnp.float32) for k, x in drawn.items()}

    grads, params = [draw() for _ in range(3)], draw()
    step = lambda g, s, p: tx.update(g, s, p)
    want, state = [], jax.vmap(tx.init)(params)
    for g in grads:
        u, state = jax.jit(jax.vmap(step))(g, state, params)
        want.append(u)
    mesh = jax.make_mesh(
        (2, 2), ("data", "model"), (kind, kind), devices=jax.devices()[:4]
    )
    with jax.set_mesh(mesh):
        spread = NamedSharding(mesh, PartitionSpec(taken))
        grads, params = jax.device_put((grads, params), spread)
        state = jax.jit(jax.vmap(tx.init, spmd_axis_name=taken))(params)
        state = jax.device_put(state, spread)
        run = jax.jit(jax.vmap(step, spmd_axis_name=taken))
        for g, due in zip(grads, want):
            u, state = run(g, state, params)
            for k in due:
                np.testing.assert_allclose(u[k], due[k], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "make,kept",
    [
        (gk.precondition_by_shampoo, ["grams", "roots"]),
        (gk.precondition_by_one_sided_shampoo, ["grams", "roots"]),
        (gk.precondition_by_soap, ["grams", "bases"]),
        (gk.precondition_by_kl_shampoo, ["grams", "bases", "values"]),
        (gk.precondition_by_inverse_free_kfac, ["factors", "moves"]),
    ],
)
def test_each_side_is_a_tree_like_the_parameters(make: Any, kept: list[str]) -> None:
    params = {"long": jnp.ones((9, 3)), "thin": jnp.ones((1, 3)), "none": None}
    state: Any = make(max_size=8).init(params)
    for side in (side for field in kept for side in getattr(state, field)):
        assert set(side) == set(params) and side["none"] is None
    assert isinstance(getattr(state, kept[0]).rows["long"], optax.MaskedNode)
    named: Any = optax.tree_map_params(
        make(max_size=8),
        lambda x, name: x if isinstance(x, optax.MaskedNode) else name,
        state,
        {"long": "long", "thin": "thin", "none": None},
        transform_non_params=lambda _: "none of them",
        is_leaf=lambda x: isinstance(x, optax.MaskedNode),
    )
    for field in kept:
        assert getattr(named, field).cols["long"] == "long"
    assert named.count == "none of them"


@pytest.mark.parametrize(
    "name", ["shampoo", "one_sided_shampoo", "soap", "kl_shampoo", "inverse_free_kfac"]
)
def test_the_boxes_of_linen_stay_around_what_has_their_shape(name: str) -> None:
    tx = getattr(gk, f"precondition_by_{name}")()
    plain = {"w": jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)}
    box = lambda x: nn.Partitioned(x, names=("in", "out"))
    want, due = tx.update(plain, tx.init(plain), plain)
    params = {"w": box(plain["w"])}
    got, state = tx.update(params, tx.init(params), params)
    np.testing.assert_array_equal(got["w"].unbox(), want["w"])
    jax.tree.map(np.testing.assert_array_equal, nn.unbox(state), due)
    for a, b in zip(jax.tree.leaves(state, is_leaf=is_box), jax.tree.leaves(due)):
        assert is_box(a) <= (b.shape == (4, 6))


def is_box(x: Any) -> bool:
    return isinstance(x, nn.Partitioned)


def test_a_state_on_auto_axes_lies_where_the_step_is_told() -> None:
    """XLA chooses by itself otherwise, and for what is worked as one stack it replicates."""
    mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("d",), ()))
    params = jax.device_put({k: jnp.ones((16, 16)) for k in "ab"}, split)
    tx, masked = gk.soap(), lambda x: isinstance(x, optax.MaskedNode)
    with jax.sharding.set_mesh(mesh):
        state = jax.jit(tx.init)(params)
        placed = optax.tree_map_params(
            tx,
            lambda x, sharding: x if masked(x) else sharding,
            state,
            dict.fromkeys(params, split),
            transform_non_params=lambda _: whole,
            is_leaf=masked,
        )
        step = jax.jit(tx.update, out_shardings=(dict.fromkeys(params, split), placed))
        u, state = step(params, state, params)
    matrices = [x for x in jax.tree.leaves((u, state)) if x.ndim == 2]
    assert len(matrices) == 14 and all(x.sharding == split for x in matrices)
