"""`store_by_offload`: where each array of a state is, and that its numbers are those of `inner`.

A CPU has the memory kinds `device` and `pinned_host` by name: types, placement and programs are
those of an accelerator, transfers are not.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as orbax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradkit as gk

PARAMS = {"b": jnp.linspace(-1.0, 1.0, 8), "w": jnp.linspace(-1.0, 1.0, 512)}
PARAMS["w"] = PARAMS["w"].reshape(16, 32)
GRADS = [jax.tree.map(lambda p, t=t: jnp.sin(5 * p + t), PARAMS) for t in range(3)]
ADAM = gk.scale_by_adam(0.9, b2=0.99)
offload = functools.partial(gk.store_by_offload, min_size=256)
INNERS = {
    "adam": lambda: ADAM,
    "optax": lambda: optax.sgd(1e-2, momentum=0.9),
    "chain": lambda: gk.chain(gk.clip_by_ema_norm(), gk.adamw(1e-2)),
    "int8": lambda: gk.store_by_int8(gk.adamw(1e-2), block=32),
}


def kinds(state: Any) -> Any:
    """The kind of memory of each leaf."""
    return jax.tree.map(lambda x: x.sharding.memory_kind, state)


def in_host(state: Any) -> Any:
    """What `kinds` must be: only leaves of 256 entries or more are in host memory."""
    return jax.tree.map(lambda x: "pinned_host" if x.size >= 256 else "device", state)


def same(a: Any, b: Any) -> None:
    """Equal bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", INNERS)
def test_numbers_are_those_of_inner_and_the_state_stays_in_host_memory(name: str):
    inner = INNERS[name]()
    tx = offload(inner)
    state, want = tx.init(PARAMS), inner.init(PARAMS)
    assert "pinned_host" in jax.tree.leaves(kinds(state))
    update, update_inner = jax.jit(tx.update), jax.jit(inner.update)
    for g in GRADS:
        assert kinds(state) == in_host(want)
        same(state, want)
        (u, state), (v, want) = (
            update(g, state, PARAMS),
            update_inner(g, want, PARAMS),
        )
        assert {*jax.tree.leaves(kinds(u))} == {"device"}
        same(u, v)
    assert kinds(state) == in_host(want)


def test_inside_a_chain_and_of_some_leaves():
    inner = gk.route({"w": offload(gk.adamw(1e-2))}, default=gk.lion(1e-2))
    tx = gk.chain(gk.clip_by_global_norm(1.0), gk.guard_by_finite(inner))
    state = tx.init(PARAMS)
    _, after = jax.jit(tx.update)(GRADS[0], state, PARAMS)
    assert jax.tree.leaves(kinds(state)).count("pinned_host") == 2
    assert kinds(after) == kinds(state)


def test_eager_scanned_vmapped_and_donated_updates_leave_the_state_where_it_was():
    tx = offload(ADAM)
    first: Any = tx.init(PARAMS)

    def step(state: Any, g: Any) -> tuple[Any, Any]:
        u, state = tx.update(g, state, PARAMS)
        return state, u

    stacked = jax.tree.map(lambda *gs: jnp.stack(gs), *GRADS)
    scanned, _ = jax.jit(lambda s, gs: jax.lax.scan(step, s, gs))(first, stacked)
    mapped, _ = jax.jit(jax.vmap(step, (None, 0)))(first, stacked)
    donating = jax.jit(step, donate_argnums=0)
    state = jax.tree.map(jnp.copy, first)
    eager = first
    for g in GRADS:
        eager, _ = step(eager, g)
        given = state
        state, _ = donating(state, g)
        assert given.mu["w"].is_deleted()
    for after in (eager, scanned, state):
        assert kinds(after) == in_host(first)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-6), after, eager
        )
    assert kinds(mapped) == in_host(first)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_on_a_mesh_shards_stay_shards(kind: AxisType):
    mesh = jax.make_mesh((8,), ("data",), (kind,))
    specs = {"b": PartitionSpec(), "w": PartitionSpec("data", None)}
    placed = {k: NamedSharding(mesh, spec) for k, spec in specs.items()}
    params, g = jax.device_put(PARAMS, placed), jax.device_put(GRADS[0], placed)
    tx = offload(ADAM)
    where: Any = gk.state_sharding(tx, params, mesh)
    assert where.mu["w"] == placed["w"].with_memory_kind("pinned_host")
    assert where.mu["b"].memory_kind == where.count.memory_kind == "device"
    with jax.set_mesh(mesh):
        state: Any = jax.jit(tx.init, out_shardings=where)(params)
        u, state = jax.jit(tx.update, out_shardings=(None, where))(g, state, params)
    assert jax.tree.map(lambda x: x.sharding, state) == where
    assert state.mu["w"].addressable_shards[0].data.shape == (2, 32)
    same(u, jax.jit(ADAM.update)(GRADS[0], ADAM.init(PARAMS), PARAMS)[0])
    kept: Any = jax.jit(tx.update)(g, tx.init(params), params)[1]
    assert kept.mu["w"].sharding.is_equivalent_to(where.mu["w"], 2)


def test_a_checkpoint_goes_back_to_host_memory(tmp_path: Any):
    tx, inner = offload(gk.adamw(1e-2)), gk.adamw(1e-2)
    state = jax.jit(tx.update)(GRADS[0], tx.init(PARAMS), PARAMS)[1]
    with orbax.StandardCheckpointer() as keeper:
        keeper.save(tmp_path / "state", state)
        keeper.wait_until_finished()
        restored = keeper.restore(tmp_path / "state", state)
    plain = jax.tree.map(np.asarray, state)  # as msgpack restores it
    back = gk.restore_state(tx, PARAMS, plain, strict=True).state
    for found in (restored, back):
        assert kinds(found) == in_host(state)
        same(found, state)
    near = gk.restore_state(inner, PARAMS, state, strict=True).state
    assert {*jax.tree.leaves(kinds(near))} == {"device"}


def test_an_average_in_host_memory_can_be_evaluated():
    tx = offload(gk.chain(gk.sgd(1e-2), gk.average_params_by_polynomial(0.0)))
    u, state = jax.jit(tx.update)(GRADS[0], tx.init(PARAMS), PARAMS)
    found = gk.eval_params(state, PARAMS)
    assert {*jax.tree.leaves(kinds(found))} == {"device"}
    same(found, optax.apply_updates(PARAMS, u))


def test_a_codec_around_it_is_refused():
    tx = gk.store_by_int8(offload(ADAM), block=32)
    wanted = r"^gradkit.store_by_int8: leaf mu/w of the .* Put store_by_offload around"
    with pytest.raises(ValueError, match=wanted):
        tx.init(PARAMS)


def test_a_backend_without_host_memory_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Some say by type that an array is there, and keep it on the device."""
    monkeypatch.setattr(jax, "default_backend", lambda: "other")
    monkeypatch.setattr(jax, "device_put", lambda x, *_: jnp.asarray(x))
    wanted = r"^gradkit.store_by_offload: the backend must .* got other\. Use the inner"
    with pytest.raises(ValueError, match=wanted):
        offload(ADAM).init(PARAMS)
