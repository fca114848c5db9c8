"""States on a mesh: their shardings, their numbers, and the bytes per device."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradkit as gk
from gradkit.catalogue import METHODS

P = PartitionSpec
SHAPES = {"wte": (64, 32), "up": {"w": (32, 64), "b": (64,)}}
SPECS = {"wte": P(None, "model"), "up": {"w": P(None, "model"), "b": P("model")}}
IS_SHAPE = {"is_leaf": lambda x: isinstance(x, tuple)}


def draw(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    f = lambda shape: np.asarray(rng.normal(size=shape), np.float32)
    return jax.tree.map(f, SHAPES, **IS_SHAPE)


def gradient(seed: int) -> Any:
    """Of six directions, which the first gradient tells apart: no basis depends on rounding."""
    rng, basis = np.random.default_rng(seed), np.random.default_rng(0)

    def f(shape: tuple[int, ...]) -> Any:
        if len(shape) == 1:
            return np.asarray(rng.normal(size=shape), np.float32)
        u, v = (np.linalg.qr(basis.normal(size=(n, 6)))[0] for n in shape)
        within = 0.1 * rng.normal(size=(6, 6)) * (seed > 0)
        return np.asarray(u @ (np.diag(2.0 ** np.arange(6)) + within) @ v.T, np.float32)

    return jax.tree.map(f, SHAPES, **IS_SHAPE)


PARAMS, GRADS = draw(0), [gradient(seed) for seed in range(3)]
RECIPES = {
    "adamw": lambda: gk.adamw(1e-2),
    "muon": lambda: gk.muon(0.02),
    "soap": lambda: gk.soap(1e-2),
    "galore": lambda: gk.galore(1e-2, rank=4),
    "adamw in int8": lambda: gk.store_by_int8(gk.adamw(1e-2), block=32),
    "adamw in int4": lambda: gk.store_by_int4(gk.adamw(1e-2), block=32),
    "lion": lambda: gk.lion(1e-3),
}
LEAST = {  # of 8: scales, bases and projected moments may be too small to be split
    "adamw": 7.5,
    "muon": 7.4,
    "soap": 4.5,
    "galore": 3.5,
    "adamw in int8": 4,
    "adamw in int4": 2,
    "lion": 7.5,
}
OTHERS = sorted({m.name for m in METHODS if m.kind == "recipe"} - {*RECIPES})


def mesh_of(kind: AxisType = AxisType.Auto) -> jax.sharding.Mesh:
    return jax.make_mesh((4, 2), ("data", "model"), (kind, kind))


def placed(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    put = lambda x, s: jax.device_put(x, NamedSharding(mesh, s))
    return jax.tree.map(put, tree, SPECS)


def alone(tx: Any) -> Any:
    state, u, update = tx.init(PARAMS), None, jax.jit(tx.update)
    for grads in GRADS:
        u, state = update(grads, state, PARAMS)
    return u, state


def on_mesh(tx: Any, kind: AxisType, axis: str | None) -> Any:
    mesh = mesh_of(kind)
    with jax.set_mesh(mesh):
        params = placed(PARAMS, mesh)
        lies = gk.state_sharding(tx, params, mesh, axis=axis)
        state, u = jax.jit(tx.init, out_shardings=lies)(params), None
        auto = {"out_shardings": (None, lies)} if kind == AxisType.Auto else {}
        update = jax.jit(tx.update, **auto)
        for grads in GRADS:
            u, state = update(placed(grads, mesh), state, params)
            for x, s in zip(jax.tree.leaves(state), jax.tree.leaves(lies)):
                assert x.sharding.is_equivalent_to(s, x.ndim)
    return u, state


def fraction(state: Any) -> float:
    """The bytes of a state over those that its first device holds."""
    device = jax.devices()[0]
    here = sum(
        shard.data.nbytes
        for x in jax.tree.leaves(state)
        for shard in x.addressable_shards
        if shard.device == device
    )
    return sum(x.nbytes for x in jax.tree.leaves(state)) / here


def check_equal(tx: Any, kind: AxisType, axis: str | None, atol: float = 1e-6) -> Any:
    (u, state), (u_alone, _) = on_mesh(tx, kind, axis), alone(tx)
    close = lambda x, y: np.testing.assert_allclose(x, y, atol=atol, rtol=1e-5)
    jax.tree.map(close, u, u_alone)
    return state


@pytest.mark.parametrize(
    "recipe,kind",
    [  # on Explicit axes most by make check-full alone, and int8, whose blocks are int4's
        pytest.param(recipe, kind, marks=[pytest.mark.slow] * is_slow)
        for recipe in RECIPES
        for kind in (AxisType.Auto, AxisType.Explicit)
        for is_slow in [
            recipe == "adamw in int8"
            or (kind == AxisType.Explicit and recipe not in ("adamw", "muon"))
        ]
    ],
)
def test_a_mesh_goes_where_one_device_does(recipe: str, kind: AxisType) -> None:
    """On Auto axes with ZeRO-1 besides; states stay where they were said to be."""
    axis = "data" if kind == AxisType.Auto else None
    state = check_equal(RECIPES[recipe](), kind, axis)
    if axis:
        assert fraction(state) > LEAST[recipe], fraction(state)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_every_recipe_goes_on_a_mesh_where_one_device_does(name: str) -> None:
    """What six directions leave unseen is near Shampoo's damping; of lorp's basis, rounding."""
    tx, atol = getattr(gk, name)(), 1e-4 if name in ("lorp", "shampoo") else 5e-6
    check_equal(tx, AxisType.Auto, "data", atol)
    check_equal(tx, AxisType.Explicit, None, atol)


def test_the_bytes_a_device_holds_fall_with_the_devices() -> None:
    """As 1/n, but for counters."""
    for n in (1, 2, 4, 8):
        mesh = jax.make_mesh((n,), ("data",), (AxisType.Auto,))
        params = jax.device_put(PARAMS, NamedSharding(mesh, P()))
        tx = gk.adamw()
        lies = gk.state_sharding(tx, params, mesh, axis="data")
        state = jax.jit(tx.init, out_shardings=lies)(params)
        assert n * 0.99 < fraction(state) <= n
        plain = gk.state_sharding(tx, params, mesh)
        assert fraction(jax.jit(tx.init, out_shardings=plain)(params)) == 1


def test_a_restore_puts_a_state_where_it_belongs(tmp_path: Any) -> None:
    """Shapes with a sharding are enough: nothing lies on one device in between."""
    mesh, tx = mesh_of(), gk.adamw(1e-2)
    params = placed(PARAMS, mesh)
    abstract = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), params
    )
    lies = gk.state_sharding(tx, abstract, mesh, axis="data")
    state = jax.jit(tx.init, out_shardings=lies)(params)
    target = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        jax.eval_shape(tx.init, abstract),
        lies,
    )
    with ocp.StandardCheckpointer() as keeper:
        keeper.save(tmp_path / "state", state)
        keeper.wait_until_finished()
        restored = keeper.restore(tmp_path / "state", target)
    for x, s in zip(jax.tree.leaves(restored), jax.tree.leaves(lies)):
        assert x.sharding.is_equivalent_to(s, x.ndim)
    jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_wrappers_of_optax_are_seen_through() -> None:
    mesh = mesh_of()
    params = placed(PARAMS, mesh)
    mask = {"wte": False, "up": {"w": True, "b": False}}
    for tx in (
        optax.masked(gk.adamw(), mask),
        optax.MultiSteps(gk.adamw(), 2).gradient_transformation(),
        optax.inject_hyperparams(optax.adamw)(1e-3),
        gk.accumulate(gk.guard_by_finite(gk.adamw())),
        gk.route({"w": gk.muon()}, default=gk.adamw()),
        gk.chain(gk.adamw(), gk.average_params_by_ema()),
    ):
        lies = gk.state_sharding(tx, params, mesh)
        assert jax.tree.structure(lies) == jax.tree.structure(tx.init(params))
        specs = {s.spec for s in jax.tree.leaves(lies)}
        assert P(None, "model") in specs and P() in specs


def test_an_axis_that_is_taken_stays_where_it_is() -> None:
    mesh = mesh_of()
    p = jax.device_put(np.ones((8, 6, 4)), NamedSharding(mesh, P(("model", "data"))))
    assert gk.state_sharding(gk.lion(), p, mesh, axis="data")[0].mu.spec[0] == (
        "model",
        "data",
    )
    q = jax.device_put(np.ones((6, 8, 4)), NamedSharding(mesh, P("model")))
    spec = gk.state_sharding(gk.lion(), q, mesh, axis="data")[0].mu.spec
    assert spec == P("model", "data", None)


def test_what_is_wrong_is_named() -> None:
    mesh = mesh_of()
    params = placed(PARAMS, mesh)

    def fails(kind: type[Exception], text: str, *args: Any, **options: Any) -> None:
        with pytest.raises(kind, match=re.escape(f"gradkit.state_sharding: {text}")):
            gk.state_sharding(*args, **options)

    tx = gk.adamw()
    text = "axis must be an axis of the mesh, 'data', 'model', got 'batch'"
    fails(ValueError, text, tx, params, mesh, axis="batch")
    explicit = mesh_of(AxisType.Explicit)
    there = placed(PARAMS, explicit)
    text = "axis must be an Auto axis of the mesh, got 'data'"
    fails(ValueError, text, tx, there, explicit, axis="data")
    fails(ValueError, "leaf up/b must be on the mesh", tx, PARAMS, mesh)
    shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, PARAMS))
    fails(ValueError, "leaf up/b must be on the mesh", tx, shapes, mesh)
    other = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    fails(ValueError, "leaf up/b must be on the mesh, {'data': 8}", tx, params, other)
    fails(TypeError, "mesh must be a jax.sharding.Mesh, got None", tx, params, None)
    fails(ValueError, "params must be passed to init", tx, None, mesh)
    fails(TypeError, "tx must be a transform", gk.adamw, params, mesh)
