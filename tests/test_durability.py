"""States outlive their process: saved, restored, killed, restored into a changed transform."""

import gc
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import xla
from flax import linen as nn
from flax import nnx, serialization

import gradkit as gk
from gradkit._core.codec.stored import StoredState
from gradkit._core.restore.nodes import LINKED, MEASURED, nodes
from gradkit._transform.subspace.random_subspace import RandomSubspaceState

SHAPES = {"wte": (16, 8), "up": {"w": (8, 12), "b": (12,)}}


def draw(seed: int, shapes: Any = SHAPES) -> Any:
    random = np.random.RandomState(seed)  # whose numbers stay those of this seed
    f = lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32)
    return jax.tree.map(f, shapes, is_leaf=lambda x: isinstance(x, tuple))


PARAMS = draw(0)


def trained(tx: Any, steps: int = 3, params: Any = PARAMS, shapes: Any = SHAPES) -> Any:
    """The state after updates by random gradients."""
    state, update = tx.init(params), jax.jit(tx.update)
    for step in range(steps):
        _, state = update(draw(step + 1, shapes), state, params, value=jnp.float32(1))
    return state


def by_msgpack(state: Any, _: Any = None) -> Any:
    return serialization.msgpack_restore(serialization.to_bytes(state))


def by_orbax(state: Any, folder: pathlib.Path) -> Any:
    with ocp.StandardCheckpointer() as keeper:
        keeper.save(folder / "state", state)
        keeper.wait_until_finished()
        return keeper.restore(folder / "state")  # without a target


FORMS: dict[str, Callable[[Any, pathlib.Path], Any]] = {
    "live": lambda state, _: state,
    "pickle": lambda state, _: pickle.loads(pickle.dumps(jax.device_get(state))),
    "msgpack": by_msgpack,
    "Orbax": by_orbax,
}


def by_path(state: Any) -> dict[str, Any]:
    return {path: n.leaf for path, n in nodes(state).leaves().items()}


def check_restored(r: Any, tx: Any, old: Any, params: Any = PARAMS) -> None:
    """Every leaf is that of `old` which is said, or the one that `init` makes."""
    made, got, source = by_path(tx.init(params)), by_path(r.state), by_path(old)
    assert jax.tree.structure(r.state) == jax.tree.structure(tx.init(params))
    assert got.keys() == made.keys() == r.kept.keys() | r.fresh.keys()
    assert not r.kept.keys() & r.fresh.keys()
    assert source.keys() == {*r.kept.values()} | r.dropped.keys()
    for path, x in got.items():
        want = source[r.kept[path]] if path in r.kept else made[path]
        assert isinstance(x, jax.Array) and x.dtype == made[path].dtype
        np.testing.assert_array_equal(x, want)


# What changes between a save and a restore


ADAMW = lambda: gk.adamw(optax.linear_schedule(1e-2, 0.0, 9))
ADAM_LEAVES = (
    9  # two counters of a learning rate and a decay, one of Adam, and 6 moments
)


class Change(NamedTuple):
    before: Callable[[], Any]
    after: Callable[[], Any]
    fresh: tuple[str, ...]  # the beginnings of paths that are fresh
    dropped: tuple[str, ...]


CHANGES = {
    "nothing": Change(ADAMW, ADAMW, (), ()),
    "a clip is added": Change(
        ADAMW, lambda: gk.chain(gk.clip_by_ema_norm(), ADAMW()), ("0/",), ()
    ),
    "a clip is taken off": Change(
        lambda: gk.chain(gk.clip_by_ema_norm(), ADAMW()), ADAMW, (), ("0/",)
    ),
    "a clip without a state is added": Change(
        ADAMW, lambda: gk.chain(gk.clip_by_global_norm(), ADAMW()), (), ()
    ),
    "a flat chain loses a clip": Change(
        lambda: gk.chain(
            gk.clip_by_ema_norm(), gk.scale_by_adam(), gk.step_by_learning_rate(0.1)
        ),
        lambda: gk.chain(gk.scale_by_adam(), gk.step_by_learning_rate(0.1)),
        (),
        ("0/",),
    ),
    "a wrapper is put on": Change(
        ADAMW,
        lambda: gk.accumulate(gk.guard_by_finite(ADAMW())),
        ("count", "micro", "averaged", "skipped", "value", "mean", "inner/skipped"),
        (),
    ),
    "a wrapper is taken off": Change(
        lambda: gk.guard_by_spike(gk.muon(0.1)),
        lambda: gk.muon(0.1),
        (),
        ("skipped", "recent", "count", "seen", "mean", "norms", "values", "steps"),
    ),
    "an average is added": Change(
        ADAMW,
        lambda: gk.chain(ADAMW(), gk.average_params_by_ema()),
        ("1/",),
        (),
    ),
    "a route is put around": Change(
        ADAMW, lambda: gk.route({}, default=ADAMW()), (), ()
    ),
    "another recipe of other fields": Change(
        lambda: gk.soap(0.1), lambda: gk.lion(0.1), ("0/",), ("0/",)
    ),
    "optax's wrapper is put on": Change(
        ADAMW,
        lambda: optax.apply_if_finite(ADAMW(), 3),
        ("notfinite_count", "last_finite", "total_notfinite"),
        (),
    ),
    "galore of another rank": Change(
        lambda: gk.galore(rank=3), lambda: gk.galore(rank=4), ("0/inner/0",), ("0/inner/0",)
    ),
    "codes in place of numbers": Change(
        ADAMW,
        lambda: gk.store_by_int8(ADAMW(), block=16),
        ("inner/0/", "scales/", "count"),
        ("0/",),
    ),
    "numbers in place of codes": Change(
        lambda: gk.store_by_int8(ADAMW(), block=16),
        ADAMW,
        ("0/",),
        ("inner/0/", "scales/", "count"),
    ),
    "codes of other blocks": Change(
        lambda: gk.store_by_int8(ADAMW(), block=16),
        lambda: gk.store_by_int8(ADAMW(), block=32),
        ("inner/0/mu/up/w", "inner/0/nu/up/w", "inner/0/mu/wte", "inner/0/nu/wte", "scales/"),
        ("inner/0/mu/up/w", "inner/0/nu/up/w", "inner/0/mu/wte", "inner/0/nu/wte", "scales/"),
    ),
    "moments out of their subspace": Change(
        lambda: gk.subspace.project(gk.scale_by_adam(), 8),
        lambda: gk.scale_by_adam(),
        ("",),
        ("",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_fits_goes_on_and_the_rest_is_listed(
    change: str, tmp_path: pathlib.Path
) -> None:
    """In whichever form the state comes back."""
    before, after, fresh, dropped = CHANGES[change]
    shapes = {"up": {"w": (8, 12)}} if "subspace" in change else SHAPES
    params, tx = draw(0, shapes), after()
    ours, state = by_path(tx.init(params)), trained(before(), 3, params, shapes)
    for form in FORMS.values():
        old = form(state, tmp_path)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            r = gk.restore_state(tx, params, old)
        assert bool(told) == (not r.kept), [str(w.message) for w in told]
        assert {*r.fresh} == {path for path in ours if path.startswith(fresh)}
        assert {*r.dropped} == {
            path for path in by_path(old) if path.startswith(dropped)
        }
        check_restored(r, tx, old, params)
        if not (r.fresh or r.dropped):
            assert gk.restore_state(tx, params, old, strict=True).kept == r.kept
            continue
        with pytest.raises(ValueError, match=r"^gradkit.restore_state: old must be"):
            gk.restore_state(tx, params, old, strict=True)
    grads = draw(9, shapes)
    again = jax.jit(tx.update)(grads, r.state, params, value=jnp.float32(1))[1]
    assert jax.tree.structure(again) == jax.tree.structure(r.state)


def test_the_state_goes_on_as_if_nothing_had_happened() -> None:
    """The schedule too, whose counter stands in a state of one counter."""
    old = trained(ADAMW())
    want = jax.jit(ADAMW().update)(draw(9), old, PARAMS)[0]
    tx = gk.chain(gk.clip_by_global_norm(1e9), gk.guard_by_finite(ADAMW()))
    state = gk.restore_state(tx, PARAMS, by_msgpack(old)).state
    got = jax.jit(tx.update)(draw(9), state, PARAMS)[0]
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6)
    jax.tree.map(close, got, want)


def test_a_parameter_that_changed_is_fresh_and_others_are_kept() -> None:
    shapes = {**SHAPES, "wte": (20, 8), "new": (3,)}
    params, old = draw(0, shapes), trained(ADAMW())
    r = gk.restore_state(ADAMW(), params, by_msgpack(old))
    assert {*r.fresh} == {f"0/{m}/{p}" for m in ("mu", "nu") for p in ("wte", "new")}
    assert r.fresh["0/mu/wte"] == "0/mu/wte of old has shape (16, 8), not (20, 8)"
    assert r.fresh["0/nu/new"] == "old has no mu/new"
    assert {*r.dropped} == {"0/mu/wte", "0/nu/wte"}
    assert r.state[0].count == 3
    rows = str(r).splitlines()
    assert rows[0] == "kept 7, fresh 4, dropped 2 leaves" and len(rows) == 7


def test_what_is_fresh_beside_an_old_counter_is_up_to_7_times_as_long() -> None:
    """As docs/sharp_edges.md says of Adam at its defaults."""
    tx, longest = gk.scale_by_adam(), 0.0
    update = jax.jit(tx.update)
    state = tx.init(jnp.zeros(1))._replace(count=jnp.int32(10**6))
    for _ in range(200):
        u, state = update(jnp.ones(1), state)
        longest = max(longest, float(u[0]))
    assert 6 < longest < 7


def test_moments_of_one_parameter_stay_together() -> None:
    """A first moment over a fresh second one would be a very long step."""
    state = trained(ADAMW())
    nu = {**state[0].nu, "wte": state[0].nu["wte"].astype(jnp.bfloat16)}
    old = (state[0]._replace(nu=nu), *state[1:])
    r = gk.restore_state(ADAMW(), PARAMS, old)
    assert {*r.fresh} == {"0/mu/wte", "0/nu/wte"}
    assert r.fresh["0/mu/wte"] == "0/nu/wte of old has dtype bfloat16, not float32"


def test_codes_that_were_cast_are_refused_by_name() -> None:
    tx = gk.store_by_int8(ADAMW(), block=16)
    wide = lambda x: x.astype(np.float32) if x.dtype == np.int8 else x
    old = jax.tree.map(wide, trained(tx))
    with pytest.raises(ValueError, match="strict") as told:
        gk.restore_state(tx, PARAMS, by_msgpack(old), strict=True)
    assert "inner/0/mu/up/w of old has dtype float32, not int8" in str(told.value)


@pytest.mark.parametrize("name", ["int8", "int4", "fp8", "bfloat16_plus8"])
def test_an_update_refuses_codes_that_were_cast(name: str) -> None:
    """Orbax casts to the dtype of its target; decoded so, codes would be other numbers."""
    tx = getattr(gk, f"store_by_{name}")(gk.adamw(1e-3))
    params = {"w": jnp.ones((32, 32))}
    wide = lambda x: x.astype(jnp.float32) if x.dtype.itemsize < 4 else x
    state = jax.tree.map(wide, tx.init(params))
    with pytest.raises(ValueError, match=rf"^gradkit.store_by_{name}: .*got float32"):
        tx.update(params, state, params)


def test_a_dtype_is_not_cast() -> None:
    wide = lambda x: np.asarray(x, np.float64)
    state = jax.tree.map(wide, trained(gk.average_by_lion()))
    with pytest.warns(UserWarning, match="no leaf of old is kept"):
        r = gk.restore_state(gk.average_by_lion(), PARAMS, state)
    assert set(r.fresh.values()) == {
        f"mu/{p} of old has dtype float64, not float32" for p in ("up/b", "up/w", "wte")
    }


def test_nothing_is_restored_of_nothing() -> None:
    for old in (None, {}):
        with pytest.warns(UserWarning, match="no leaf of old is kept"):
            assert not gk.restore_state(gk.average_by_lion(), PARAMS, old).kept


def test_a_state_of_another_class_is_said_to_be_there() -> None:
    with pytest.warns(UserWarning, match="no leaf of old is kept"):
        r = gk.restore_state(optax.scale_by_adam(), PARAMS, trained(gk.scale_by_adam()))
    why = "old has fields count, mu, nu as AdamState, not ScaleByAdamState"
    assert set(r.fresh.values()) == {why}


def test_a_schema_is_of_the_state_that_it_comes_with() -> None:
    schema = gk.state_schema(gk.scale_by_adam(), PARAMS)
    with pytest.raises(ValueError, match=r"old must have leaf count, .*as its schema"):
        gk.restore_state(gk.sgd(0.1), PARAMS, trained(gk.sgd(0.1)), schema=schema)
    old, same = optax.scale_by_adam().init(PARAMS), gk.scale_by_adam()
    with pytest.raises(
        ValueError, match=r"old must have AdamState at its root, .* got Scale"
    ):
        gk.restore_state(same, PARAMS, old, schema=schema)


# What may be several things is nothing


BEFORE = lambda: gk.chain(gk.scale_by_adam(), gk.step_by_learning_rate(0.1))
AFTER = lambda: gk.chain(
    gk.scale_by_adam(), gk.decay_by_weight(0.1), gk.step_by_learning_rate(0.1)
)


@pytest.mark.parametrize("form", ["msgpack", "Orbax"])
def test_what_is_ambiguous_is_fresh_with_a_warning(form: str, tmp_path: Any) -> None:
    """A decay and a learning rate are one counter each: a file does not tell which."""
    old = FORMS[form](trained(BEFORE()), tmp_path)
    with pytest.warns(UserWarning) as told:
        r = gk.restore_state(AFTER(), PARAMS, old)
    assert str(told[0].message) == (
        "gradkit.restore_state: leaves are fresh, as several of old may be theirs: "
        "1/count (ambiguous: it may be 1 of old), 2/count (ambiguous: it may be 1 of old). "
        "Pass schema, or old as a live state."
    )
    assert told[0].filename == __file__
    assert {*r.fresh} == {"1/count", "2/count"} and {*r.dropped} == {"1/count"}
    schema = gk.state_schema(BEFORE(), PARAMS)
    r = gk.restore_state(AFTER(), PARAMS, old, schema=schema)
    assert r.kept["2/count"] == "1/count" and {*r.fresh} == {"1/count"}


@pytest.mark.parametrize("form", ["live", "pickle"])
def test_classes_tell_apart_what_fields_do_not(form: str, tmp_path: Any) -> None:
    r = gk.restore_state(AFTER(), PARAMS, FORMS[form](trained(BEFORE()), tmp_path))
    assert r.kept["2/count"] == "1/count" and {*r.fresh} == {"1/count"}


def test_twins_of_other_numbers_are_not_taken_for_each_other() -> None:
    two = lambda *more: gk.chain(
        *more, gk.average_by_heavy_ball(), gk.average_by_heavy_ball(0.5)
    )
    old = trained(two())
    assert len(gk.restore_state(two(), PARAMS, by_msgpack(old)).kept) == 6
    tx = two(gk.clip_by_ema_norm())
    with pytest.warns(
        UserWarning, match=r"1/mu/up/b \(ambiguous: it may be 0 and 1 of"
    ):
        r = gk.restore_state(tx, PARAMS, by_msgpack(old))
    assert not r.kept
    same = (old[0], old[0])
    r = gk.restore_state(tx, PARAMS, by_msgpack(same))  # whichever it is
    assert len(r.kept) == 6


PARTS: list[Callable[[], Any]] = [
    gk.scale_by_adam,
    gk.average_by_lion,
    gk.average_by_heavy_ball,
    gk.clip_by_ema_norm,
    gk.clip_by_zscore,
    lambda: gk.step_by_learning_rate(0.1),
    lambda: gk.decay_by_weight(0.1),
    gk.clip_by_global_norm,
    lambda: gk.accumulate(gk.scale_by_adan()),
    lambda: gk.store_by_int8(gk.scale_by_adabound(), block=8),
]


def test_no_leaf_is_ever_that_of_another_method() -> None:
    """Of random chains: every leaf that stands in both is kept, and is itself."""
    random = np.random.RandomState(0)
    params = {"w": jnp.ones((4, 4)), "b": jnp.ones(3)}

    def chain() -> tuple[list[int], Any]:
        chosen = [*random.permutation(len(PARTS))[: random.randint(1, 6)]]
        return chosen, gk.chain(*(PARTS[i]() for i in chosen))

    def told(chosen: list[int], path: str) -> tuple[int, str]:
        index, _, rest = path.partition("/")
        return chosen[int(index)], rest

    for _ in range(25):
        (theirs, before), (ours, after) = chain(), chain()
        leaves, structure = jax.tree.flatten(before.init(params))
        old = structure.unflatten(jnp.full_like(x, i) for i, x in enumerate(leaves))
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            live = gk.restore_state(after, params, old)
            schema = gk.state_schema(before, params)
            read = gk.restore_state(after, params, by_msgpack(old), schema=schema)
        assert live.kept == read.kept
        assert not any("several" in str(w.message) for w in heard)
        kept = {told(ours, p): told(theirs, o) for p, o in live.kept.items()}
        assert all(p == o for p, o in kept.items())
        both = {told(ours, p) for p in by_path(after.init(params))}
        assert kept.keys() == both & {told(theirs, p) for p in by_path(old)}


def test_states_that_are_linked_are_those_of_today() -> None:
    """What stands in one is taken with all of it: codes with scales, moments with a basis."""
    for kind in (StoredState, gk.subspace.SubspaceState, RandomSubspaceState):
        assert LINKED[kind.__name__] == kind._fields


# Schemas


def test_a_schema_is_the_same_if_and_only_if_states_are() -> None:
    f = gk.state_schema
    assert f(gk.adamw(1e-3), PARAMS) == f(gk.adamw(0.5, b1=0.5), PARAMS)
    assert f(gk.adamw(), PARAMS) == f(gk.adamw(), jax.eval_shape(lambda: PARAMS))
    others = [
        f(gk.adamw(), {"w": PARAMS["wte"]}),
        f(gk.lion(), PARAMS),
        f(gk.chain(gk.adamw()), PARAMS),
        f(gk.galore(rank=3), PARAMS),
        f(gk.galore(rank=4), PARAMS),
        f(BEFORE(), PARAMS),
        f(gk.chain(gk.scale_by_adam(), gk.decay_by_weight(0.1)), PARAMS),
        f(optax.inject_hyperparams(optax.adamw)(1e-3), PARAMS),
    ]
    assert len({f(gk.adamw(), PARAMS), *others}) == 9
    assert json.loads(others[1])["leaves"]["0/mu/up/b"] == "float32[12]"


def test_a_schema_names_the_leaf_that_a_file_lacks() -> None:
    tx = ADAMW()
    schema, old = gk.state_schema(tx, PARAMS), by_msgpack(trained(tx))
    assert len(gk.restore_state(tx, PARAMS, old, schema=schema).kept) == ADAM_LEAVES

    def fails(old: Any, schema: str, text: str) -> None:
        with pytest.raises(
            ValueError, match=re.escape(f"gradkit.restore_state: {text}")
        ):
            gk.restore_state(tx, PARAMS, old, schema=schema)

    less = by_msgpack(trained(tx))
    del less["0"]["nu"]["up"]["w"]
    fails(
        less, schema, "old must have leaf 0/nu/up/w, float32[8,12], as its schema says"
    )
    fails(
        {"opt_state": old}, schema, "old must have leaf 0/count, int32[], as its schema"
    )
    fails(old, "{}", "schema must be what gradkit.state_schema returned, got '{}'")
    later = json.dumps({**json.loads(schema), "layout": 99})
    fails(old, later, "schema must be of layout 1, got 99")


def test_what_is_no_transform_is_named() -> None:
    for f in (gk.state_schema, lambda *args: gk.restore_state(*args, None)):
        with pytest.raises(TypeError, match="tx must be a transform"):
            f(gk.adamw, PARAMS)
        with pytest.raises(ValueError, match="params must be passed to init"):
            f(gk.adamw(), None)


# Other containers


def test_states_of_linen_boxes_and_of_nnx_are_restored() -> None:
    boxed = {"w": nn.Partitioned(jnp.ones((4, 4)), names=(None, "x"))}
    old = ADAMW().init(boxed)
    tx = gk.accumulate(ADAMW())
    r = gk.restore_state(tx, boxed, old)
    assert len(r.kept) == 5
    assert jax.tree.structure(r.state) == jax.tree.structure(tx.init(boxed))

    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, ADAMW(), wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))
    old = nnx.to_pure_dict(nnx.state(optimizer))["opt_state"]
    new = nnx.Optimizer(model, tx, wrt=nnx.Param)
    r = gk.restore_state(tx, nnx.state(model, nnx.Param), old)
    assert len(r.kept) == 7
    structure = jax.tree.structure(new.opt_state)
    new.opt_state = nnx.data(structure.unflatten(jax.tree.leaves(r.state)))
    assert new.opt_state.inner[0].count[...] == 1
    new.update(model, jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param)))


class Attention(nnx.Module):
    """With a module and a parameter that are called `value`."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.attention = nnx.MultiHeadAttention(2, 4, rngs=rngs, decode=False)
        self.value = nnx.Param(jnp.ones((4, 4)))


@pytest.mark.parametrize("with_schema", [False, True])
@pytest.mark.parametrize("of_optimizer", [False, True])
@pytest.mark.parametrize("codec", [False, True])
def test_what_orbax_writes_of_nnx_is_kept(
    codec: bool, of_optimizer: bool, with_schema: bool, tmp_path: pathlib.Path
) -> None:
    """Each variable as a dict of its value; `nnx.state` leaves empty fields out."""
    model = Attention(nnx.Rngs(0))
    params = nnx.state(model, nnx.Param)
    before = gk.store_by_int8(gk.muon(0.1), block=16) if codec else gk.muon(0.1)
    optimizer = nnx.Optimizer(model, before, wrt=nnx.Param)
    optimizer.update(model, jax.tree.map(jnp.ones_like, params))
    saved = nnx.state(optimizer)["opt_state"] if of_optimizer else optimizer.opt_state
    old = by_orbax(saved, tmp_path)
    assert any(path.endswith("kernel/value") for path in by_path(old))
    schema = gk.state_schema(before, params) if with_schema else None
    gk.restore_state(before, params, old, schema=schema, strict=True)

    tx = gk.guard_by_finite(before)
    r = gk.restore_state(tx, params, old, schema=schema)
    assert {*r.fresh} == {"skipped", "skipped_in_a_row"} and not r.dropped
    assert not any(path.endswith("/value/value") for path in r.kept.values())
    new = nnx.Optimizer(model, tx, wrt=nnx.Param)
    nnx.update(new, {"opt_state": nnx.state(r.state)})
    got, want = (jax.tree.leaves(t) for t in (new.opt_state.inner, optimizer.opt_state))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    new.update(model, jax.tree.map(jnp.ones_like, params))


def test_a_parameter_called_value_is_itself(tmp_path: pathlib.Path) -> None:
    """Also one that stands alone in a dict, which looks like an NNX variable."""
    params = {"a": {"value": jnp.ones(3)}, "value": jnp.ones(2)}
    params["b"] = {"value": {"value": jnp.ones(4)}}
    old = trained(ADAMW(), 1, params, jax.tree.map(jnp.shape, params))
    r = gk.restore_state(ADAMW(), params, by_orbax(old, tmp_path), strict=True)
    check_restored(r, ADAMW(), old, params)


def test_an_added_part_leaves_other_numbers_of_a_measure_as_they_are() -> None:
    clip = gk.clip_by_global_norm(0.1)
    old = trained(gk.measure(gk.chain(clip, ADAMW())))
    tx = gk.measure(gk.chain(gk.clip_by_unit_norm(), clip, ADAMW()))
    r = gk.restore_state(tx, PARAMS, by_msgpack(old))
    assert all("clip_by_unit_norm" in path for path in r.fresh) and len(r.fresh) == 4
    assert r.state.events["clip_by_global_norm/clipped"].updates == 3
    assert not r.dropped and {*type(old)._fields} == MEASURED


def test_a_result_in_place_of_its_state_is_named() -> None:
    r: Any = gk.restore_state(ADAMW(), PARAMS, trained(ADAMW()))
    with pytest.raises(ValueError, match=r"got a Restored, whose \.state it is\. Call"):
        ADAMW().update(PARAMS, r, PARAMS)


def test_lists_and_single_arrays_are_parameters_too() -> None:
    for params in ([jnp.ones((3, 3)), jnp.ones(3)], jnp.ones(4)):
        for before in (gk.adamw(), gk.store_by_int8(gk.adamw(), block=2)):
            old = before.init(params)
            tx = gk.chain(gk.clip_by_ema_norm(), before)
            r = gk.restore_state(tx, params, by_msgpack(old))
            assert {*r.fresh} == {
                path for path in by_path(tx.init(params)) if path[0] == "0"
            }


# Round trips that go on while a file is written


KEY = lambda: jax.random.key(7, impl="rbg")  # a typed key, of four numbers
TRIPS: dict[str, Callable[[], Any]] = {
    "momentum": lambda: gk.lion(1e-2),
    "adaptive": lambda: gk.adamw(1e-2),
    "precondition": lambda: gk.soap(1e-2),
    "normalize": lambda: gk.muon(1e-2),
    "subspace": lambda: gk.galore(1e-2, rank=3),
    "random": lambda: gk.apollo(1e-2, rank=3, key=jax.random.key(7)),
    "accumulate": lambda: gk.accumulate(gk.muon(1e-2), every=2),
    "guard": lambda: gk.guard_by_spike(gk.lion(1e-2)),
    "average": lambda: gk.chain(gk.adamw(1e-2), gk.average_params_by_ema()),
    "tune": lambda: gk.tune(gk.adamw, learning_rate=1e-2),
    "int8": lambda: gk.store_by_int8(gk.galore(1e-2, rank=3), block=16),
    "fp8": lambda: gk.store_by_fp8(gk.adamw(1e-2), block=16),
    "typed key": lambda: gk.store_by_bfloat16(gk.adamw(1e-2), min_size=9, key=KEY()),
    "chain of all": lambda: gk.chain(
        gk.clip_by_percentile(),
        gk.accumulate(gk.store_by_int8(gk.guard_by_finite(gk.adamw(1e-2)), block=16)),
        gk.average_params_by_window(),
    ),
}


@pytest.mark.parametrize("trip", TRIPS)
def test_a_state_saved_while_training_goes_on_bit_for_bit(
    trip: str, tmp_path: pathlib.Path
) -> None:
    """Orbax writes in the background while the next update takes the state's memory."""
    tx = TRIPS[trip]()
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    donating = jax.jit(tx.update, donate_argnums=1)
    given = {"value": jnp.float32(1)}
    for step in range(3):
        _, state = update(draw(step + 1), state, PARAMS, **given)
    held = jax.tree.map(lambda x: np.array(x, copy=True), state)
    data = serialization.to_bytes(state)
    target = jax.eval_shape(tx.init, PARAMS)
    with ocp.StandardCheckpointer() as keeper:
        keeper.save(tmp_path / "state", state)
        want = donating(draw(4), state, PARAMS, **given)
        keeper.wait_until_finished()
        from_orbax = keeper.restore(tmp_path / "state", target)
    from_msgpack = serialization.from_bytes(tx.init(PARAMS), data)
    for restored in (from_orbax, from_msgpack):
        jax.tree.map(np.testing.assert_array_equal, restored, held)
        got = update(draw(4), restored, PARAMS, **given)
        assert jax.tree.structure(got) == jax.tree.structure(want)
        jax.tree.map(np.testing.assert_array_equal, got, want)


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.up, self.down = nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(jnp.tanh(self.up(x)))


def test_an_nnx_optimizer_goes_on_bit_for_bit(tmp_path: pathlib.Path) -> None:
    tx = gk.accumulate(gk.store_by_int8(gk.muon(1e-2), block=8), every=2)

    @nnx.jit
    def step(model: Net, optimizer: nnx.Optimizer, x: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean(m(x) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    def new() -> tuple[Net, nnx.Optimizer]:
        model = Net(nnx.Rngs(0))
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    batches = jax.random.normal(jax.random.key(0), (6, 5, 4))
    pair = new()
    for x in batches[:3]:
        step(*pair, x)
    with ocp.StandardCheckpointer() as keeper:
        keeper.save(tmp_path / "state", nnx.to_pure_dict(nnx.state(pair)))
        want = [step(*pair, x) for x in batches[3:]]
        keeper.wait_until_finished()
        again = new()
        state = nnx.state(again)
        restored = keeper.restore(tmp_path / "state", nnx.to_pure_dict(state))
    nnx.replace_by_pure_dict(state, restored)
    nnx.update(again, state)
    assert [step(*again, x) for x in batches[3:]] == want


# Files that are cut short, or of another transform


def complaint(f: Callable[[], Any]) -> str:
    with pytest.raises(Exception) as told:
        f()
    return str(told.value)


def test_msgpack_names_a_leaf_that_is_missing_and_an_update_one_of_another_shape() -> (
    None
):
    tx = gk.adamw()
    data = serialization.to_bytes(trained(tx))
    text = complaint(lambda: serialization.from_bytes(tx.init(PARAMS), data[:-9]))
    assert "incomplete input" in text
    less = by_msgpack(trained(tx))
    del less["0"]["nu"]["up"]["w"]
    cut = serialization.msgpack_serialize(less)
    text = complaint(lambda: serialization.from_bytes(tx.init(PARAMS), cut))
    assert "{'w'}" in text and "./0/nu/up" in text
    three, four = gk.galore(rank=3), gk.galore(rank=4)
    data = serialization.to_bytes(trained(three))
    state = serialization.from_bytes(
        four.init(PARAMS), data
    )  # shapes are not looked at
    for update in (four.update, jax.jit(four.update)):
        text = complaint(lambda update=update: update(draw(1), state, PARAMS))
        assert text == (
            "gradkit.galore: state must be of these parameters and arguments, got shape "
            "(8, 3) instead of (8, 4) for leaf 0/inner/0/bases/up/w. "
            "Call tx.update(grads, state, params) with what tx.init(params) made."
        )


# Orbax leaves reads behind when it refuses, whose errors Python reports later.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_orbax_names_a_leaf_that_is_missing_and_refuses_another_shape(
    tmp_path: pathlib.Path,
) -> None:
    """Of one leaf, as Orbax otherwise leaves reads behind that are reported later."""
    tx, lion = gk.adamw(), gk.average_by_lion()
    state = trained(tx)
    up = {"b": state[0].nu["up"]["b"]}
    less = (state[0]._replace(nu={**state[0].nu, "up": up}), *state[1:])
    with ocp.StandardCheckpointer() as keeper:
        keeper.save(tmp_path / "less", less)
        keeper.save(tmp_path / "three", lion.init(jnp.ones((8, 3))))
        keeper.wait_until_finished()
        text = complaint(lambda: keeper.restore(tmp_path / "less", state))
        assert "[0].nu.up.w" in text
        target = lion.init(jnp.ones((8, 4)))
        text = complaint(lambda: keeper.restore(tmp_path / "three", target))
        assert "Requested shape: (8, 4) is not compatible with the stored shape" in text
    for update in (tx.update, jax.jit(tx.update)):
        text = complaint(lambda update=update: update(draw(1), less, PARAMS))
        assert "gradkit.adamw: state must be of these" in text
        assert "got no leaf 0/nu/up/w" in text
    gc.collect()  # so that they are reported here


# Orbax leaves reads behind when it refuses, whose errors Python reports later.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_orbax_file_that_is_cut_short_is_refused(tmp_path: pathlib.Path) -> None:
    """No state comes back that is partly zeros."""
    state = trained(gk.average_by_lion(), 1, jnp.ones((40, 30)), (40, 30))
    with ocp.StandardCheckpointer() as keeper:
        keeper.save(tmp_path / "state", state)
        keeper.wait_until_finished()
        folder = tmp_path / "state"
        files = [folder / "manifest.ocdbt", *(f for f in (folder / "d").iterdir())]
        for file in files:
            whole = file.read_bytes()
            file.write_bytes(whole[: len(whole) // 2])
            text = complaint(lambda: keeper.restore(folder, state))
            assert "DATA_LOSS" in text or "OUT_OF_RANGE" in text
            file.write_bytes(whole)
        keeper.restore(folder, state)


# A checkpoint of an earlier release


GOLDEN = pathlib.Path(__file__).parent / "golden" / "states_0.1.0.msgpack"
RECORDED: dict[str, Callable[[], Any]] = {
    "adamw": lambda: gk.adamw(1e-2),
    "galore": lambda: gk.galore(1e-2, rank=3),
    "soap": lambda: gk.soap(1e-2),
    "adamw in int8": lambda: gk.store_by_int8(gk.adamw(1e-2), block=32),
}


def two_updates(tx: Any, state: Any) -> list[Any]:
    found, update = [], jax.jit(tx.update)
    for seed in (4, 5):
        u, state = update(draw(seed), state, PARAMS)
        found.append(u)
    return found


def record() -> None:
    """Write the file, of a new release: `python tests/test_durability.py`."""
    kept = {}
    for name, make in RECORDED.items():
        state = trained(make())
        kept[name] = {
            "state": serialization.to_state_dict(state),
            "schema": gk.state_schema(make(), PARAMS),
            "updates": serialization.to_state_dict(two_updates(make(), state)),
        }
    GOLDEN.write_bytes(serialization.msgpack_serialize(jax.device_get(kept)))


@pytest.mark.parametrize("name", RECORDED)
def test_a_checkpoint_of_this_release_goes_on(name: str) -> None:
    kept, tx = (
        serialization.msgpack_restore(GOLDEN.read_bytes())[name],
        RECORDED[name](),
    )
    target = serialization.from_state_dict(tx.init(PARAMS), kept["state"])
    r = gk.restore_state(tx, PARAMS, kept["state"], schema=kept["schema"], strict=True)
    assert kept["schema"] == gk.state_schema(tx, PARAMS)
    for state in (target, r.state):
        for i, u in enumerate(two_updates(tx, state)):
            want = serialization.from_state_dict(PARAMS, kept["updates"][str(i)])
            close = lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=1e-7)
            jax.tree.map(close, u, want)
    assert GOLDEN.stat().st_size < 30_000


# A run that is killed


LOOP = '''
import os, pathlib, random, signal, sys, time

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import linen as nn

import gradkit as gk

STEPS = 40


def train(folder, log):
    """A loop as users write it: one checkpoint every three steps, written in the background."""
    model = nn.Sequential([nn.Dense(8), nn.tanh, nn.Dense(1)])
    tx = gk.chain(gk.clip_by_ema_norm(), gk.store_by_int8(gk.adamw(3e-2), block=8))

    def first():
        params = model.init(jax.random.key(0), jnp.zeros((1, 4)))
        return {"params": params, "opt_state": tx.init(params)}

    @jax.jit
    def step(state, i):
        x = jax.random.normal(jax.random.fold_in(jax.random.key(1), i), (16, 4))
        f = lambda p: jnp.mean((model.apply(p, x)[:, 0] - jnp.sin(x.sum(1))) ** 2)
        loss, grads = jax.value_and_grad(f)(state["params"])
        u, opt_state = tx.update(grads, state["opt_state"], state["params"])
        params = jax.tree.map(jnp.add, state["params"], u)
        return {"params": params, "opt_state": opt_state}, loss

    options = ocp.CheckpointManagerOptions(save_interval_steps=3, max_to_keep=2)
    with ocp.CheckpointManager(folder, options=options) as manager, open(log, "a") as out:
        start = manager.latest_step()
        if start is None:
            state, start = jax.jit(first)(), 0
        else:
            target = ocp.args.StandardRestore(jax.eval_shape(first))
            state = manager.restore(start, args=target)
        for i in range(start, STEPS):
            state, loss = step(state, jnp.int32(i))
            print(i, float(loss).hex(), file=out, flush=True)
            manager.save(i + 1, args=ocp.args.StandardSave(state))


def child(folder, log):
    pid = os.fork()
    if not pid:
        code = 1
        try:
            train(folder, log)
            code = 0
        finally:
            os._exit(code)
    return pid


def lines(log):
    return log.read_text().count("\\n") if log.exists() else 0


def main(home, kills):
    home = pathlib.Path(home)
    whole = child(home / "whole", home / "whole.log")
    assert os.waitpid(whole, 0)[1] == 0
    log, chance = home / "killed.log", random.Random(0)
    for _ in range(kills):
        before = lines(log)
        pid = child(home / "killed", log)
        wait = before + chance.randint(0, STEPS // 4)
        done = (0, 0)
        while lines(log) <= wait and done == (0, 0):
            time.sleep(0.001)
            done = os.waitpid(pid, os.WNOHANG)
        if done == (0, 0):
            time.sleep(chance.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
            done = os.waitpid(pid, 0)
        print(before, lines(log), done[1], flush=True)
    assert os.waitpid(child(home / "killed", log), 0)[1] == 0


main(sys.argv[1], int(sys.argv[2]))
'''


def check_killed(kills: int, home: pathlib.Path) -> None:
    """The run loses at most what came after its last checkpoint, and nothing else changes."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(home / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "XLA_FLAGS": " ".join(xla.FAST),
        "PYTHONWARNINGS": "ignore",  # of a fork, before JAX has started anything
    }
    (home / "loop.py").write_text(LOOP)
    run = [sys.executable, str(home / "loop.py"), str(home), str(kills)]
    done = subprocess.run(
        run, env={**os.environ, **cache}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]

    def curve(name: str) -> dict[int, str]:
        losses: dict[int, str] = {}
        for line in (home / name).read_text().splitlines():
            i, loss = line.split()
            assert losses.setdefault(int(i), loss) == loss, f"step {i} differs"
        return losses

    assert curve("killed.log") == curve("whole.log")
    assert [*curve("whole.log")] == [*range(40)]
    ends = [line.split() for line in done.stdout.splitlines()]
    assert len(ends) == kills and sum(int(code) == 9 for *_, code in ends) > kills // 2


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: pathlib.Path) -> None:
    check_killed(2, tmp_path)


@pytest.mark.slow
def test_a_run_killed_fifty_times_goes_on_bit_for_bit(tmp_path: pathlib.Path) -> None:
    """As ten runs, each killed five times."""
    for i in range(10):
        (tmp_path / str(i)).mkdir()
        check_killed(5, tmp_path / str(i))


if __name__ == "__main__":
    record()
