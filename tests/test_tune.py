"""Hyperparameters that are state: tuned transforms do what plain ones do, and are read and set."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from flax import nnx
from test_compose import equal, message

import gradkit as gk
from gradkit._core.factory import factory as public
from gradkit._core.types import Hyper, Rounding

SHAPES = {"kernel": (4, 4), "bias": (4,), "scale": ()}
RATES = np.float32([0.5, 0.1, 0.02])


def draw(seed: int, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), dtype) for k, s in SHAPES.items()}


PARAMS = draw(0)
GRADS = [draw(t) for t in range(1, 6)]


def run(tx: Any, grads: Any = GRADS, params: Any = PARAMS, state: Any = None) -> Any:
    """The updates of gradients in turn, jitted, and the last state."""
    update, out = jax.jit(optax.with_extra_args_support(tx).update), []
    state = tx.init(params) if state is None else state
    with jax.numpy_dtype_promotion("standard"):  # optax raises numbers to whole powers
        for g in grads:
            u, state = update(g, state, params)
            out.append(u)
    return out, state


def close(got: Any, want: Any, rtol: float = 2e-5) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    check = lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6)
    jax.tree.map(check, got, want)


def two_adams(learning_rate: Any, b1: float = 0.8) -> Any:
    """A factory with parts of one name, and numbers of its own."""
    parts = gk.scale_by_adam(b1), gk.scale_by_adam(eps=0.5)
    return gk.chain(*parts, gk.step_by_learning_rate(learning_rate))


# Of one transform

EACH = [
    (gk.adamw, {"learning_rate": 0.1, "weight_decay": 0.2}),
    (gk.muon, {"learning_rate": 0.1, "weight_decay": 0.2}),
    (gk.soap, {"learning_rate": 0.1}),
    (gk.galore, {"rank": 2, "every": 2}),
    (gk.lion, {"learning_rate": 0.1}),
    (gk.ademamix, {"b3": gk.schedule_by_half_life(0.9, end=0.999, steps=4)}),
    (optax.adamw, {"learning_rate": 0.1, "mask": {k: k != "bias" for k in SHAPES}}),
    (optax.sgd, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
]


@pytest.mark.parametrize("factory,given", EACH)
def test_it_does_what_the_plain_one_does(factory: Any, given: dict[str, Any]):
    want, last = run(factory(**given))
    got, state = run(gk.tune(factory, **given))
    close(got, want)
    assert jax.tree.structure(state.inner) == jax.tree.structure(last)
    assert state.count == len(GRADS)


def test_all_numbers_of_a_factory_and_its_parts_are_state():
    tuned = gk.tune(two_adams, learning_rate=0.1).init(PARAMS)
    want = {
        "b1": 0.8,
        "learning_rate": 0.1,
        "scale_by_adam/b2": 0.999,
        "scale_by_adam/eps": 1e-8,
        "scale_by_adam_2/b1": 0.9,
        "scale_by_adam_2/b2": 0.999,
        "scale_by_adam_2/eps": 0.5,
    }
    found = gk.hyperparameters(tuned)
    assert found == {k: jnp.float32(x) for k, x in want.items()}
    assert {x.dtype for x in found.values()} == {jnp.dtype(jnp.float32)}
    names = set(gk.hyperparameters(gk.tune(gk.muon).init(PARAMS)))
    own = "adam_eps adam_lr_ratio b1 b2 eps learning_rate momentum weight_decay"
    assert names == set(own.split())  # all that its parts have follows from these


def test_numbers_of_parts_of_parts_have_paths():
    def nested(learning_rate: float) -> Any:
        inner = gk.galore(rank=2)
        low = gk.project_by_fira(gk.scale_by_adam(), rank=2)
        return gk.chain(inner, gk.route({"kernel": low}, default=gk.sgd(learning_rate)))

    found = gk.hyperparameters(gk.tune(nested, learning_rate=0.1).init(PARAMS))
    assert {"galore/eps", "project_by_fira/scale", "scale_by_adam/b2"} <= set(found)
    lars = gk.hyperparameters(gk.tune(lambda: gk.lars()).init(PARAMS))
    assert lars["lars/normalize_by_trust_ratio/max_norm"] == jnp.inf
    assert not any(name.endswith(("/rank", "/every")) for name in found)


@pytest.mark.parametrize(
    "name,value,plain",
    [
        ("scale_by_adam_2/eps", 0.25, {"eps": 0.25}),
        ("scale_by_adam_2/b1", 0.5, {"b1": 0.5}),
    ],
)
def test_a_number_of_a_part_is_given_or_set(name: str, value: float, plain: Any):
    def want(learning_rate: float) -> Any:
        parts = gk.scale_by_adam(0.8), gk.scale_by_adam(**{"eps": 0.5, **plain})
        return gk.chain(*parts, gk.step_by_learning_rate(learning_rate))

    due = run(want(0.1))[0]
    close(run(gk.tune(two_adams, learning_rate=0.1, **{name: value}))[0], due)
    tx = gk.tune(two_adams, learning_rate=0.1)
    state = gk.set_hyperparameters(tx.init(PARAMS), {name: value})
    close(run(tx, state=state)[0], due)
    assert not np.allclose(run(tx)[0][-1]["kernel"], due[-1]["kernel"], rtol=1e-3)


def test_a_number_that_follows_from_others_may_be_given_all_the_same():
    tx = gk.tune(gk.muon, **{"scale_by_adam/eps": 0.5})
    close(run(tx)[0], run(gk.muon(adam_eps=0.5))[0])
    assert gk.hyperparameters(tx.init(PARAMS))["scale_by_adam/eps"] == 0.5


def test_parts_are_those_that_are_called_with_what_is_given():
    @public
    def either(eps: Hyper | None = None) -> Any:
        return gk.scale_by_adam() if eps is None else gk.scale_by_adam(eps=eps)

    tx = gk.tune(lambda: either(), **{"either/eps": 0.5})
    assert "either/scale_by_adam/eps" not in gk.hyperparameters(tx.init(PARAMS))
    close(run(tx)[0], run(gk.scale_by_adam(eps=0.5))[0])


def test_a_part_keeps_its_numbers_where_it_is_built_again_for_a_view():
    """Within it `batch_axes` are those of its stacks, so that recipes are built in the update."""
    view = lambda tx: gk.view_by_pattern(
        tx, patterns={"kernel": "b in out -> b in out"}
    )
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.asarray(rng.normal(size=(3, 4, 4)), jnp.float32)}
    plain, tx = gk.shampoo(0.1), gk.tune(gk.shampoo, learning_rate=0.1)
    name = {"precondition_by_shampoo/rows_power": 0.125}
    want = run(view(plain), [params], params)[0]
    close(run(view(tx), [params], params)[0], want, rtol=1e-3)
    state = gk.set_hyperparameters(view(tx).init(params), name)
    got = run(view(tx), [params], params, state)[0]
    assert not np.allclose(got[0]["kernel"], want[0]["kernel"], rtol=1e-2)


def test_what_is_no_float_stays_as_it_is():
    hidden = lambda path, leaf: path == "kernel"
    tx = gk.tune(gk.muon, hidden=hidden, mask={k: True for k in SHAPES}, batch_axes=())
    assert {r.transform for r in gk.routes(tx, PARAMS)} == {"matrices", "adam"}
    optim = gk.tune(optax.adamw, learning_rate=1, mu_dtype=None, nesterov=True)
    found = gk.hyperparameters(optim.init(PARAMS))
    assert found["learning_rate"] == 1.0 and found["learning_rate"].dtype == jnp.float32
    assert set(found) == {
        "learning_rate",
        "b1",
        "b2",
        "eps",
        "eps_root",
        "weight_decay",
    }
    every = gk.tune(gk.accumulate, inner=gk.sgd(0.1), every=lambda count: 1 + count)
    assert not gk.hyperparameters(every.init(PARAMS))
    close(run(every)[0], run(gk.accumulate(gk.sgd(0.1), every=lambda t: 1 + t))[0])


def test_what_is_bound_by_partial_is_no_state():
    tx = gk.tune(functools.partial(optax.adamw, b1=0.5), learning_rate=0.1)
    assert "b1" not in gk.hyperparameters(tx.init(PARAMS))
    close(run(tx)[0], run(optax.adamw(0.1, b1=0.5))[0])
    again = gk.tune(functools.partial(gk.adamw, b1=0.5), b1=0.6)
    assert gk.hyperparameters(again.init(PARAMS))["b1"] == jnp.float32(0.6)


def test_dtypes_are_those_of_parameters_and_arrays_but_never_less():
    def bits(dtype: Any, **given: Any) -> dict[str, int]:
        state = gk.tune(gk.clip_by_spike, **given).init(draw(0, dtype))
        return {k: x.dtype.itemsize for k, x in gk.hyperparameters(state).items()}

    with jax.enable_x64(True):
        for dtype in (jnp.bfloat16, jnp.float32):
            assert bits(dtype) == bits(dtype, decay=np.float64(0.5)) == {"decay": 4}
        assert bits(jnp.float32, decay=jnp.float64(0.5)) == {"decay": 8}
        assert bits(jnp.float64, decay=jnp.float32(0.5)) == {"decay": 4}
        assert bits(jnp.float64) == {"decay": 8}


def test_a_value_that_is_set_retraces_nothing():
    tx, traces = gk.tune(gk.adamw, learning_rate=0.1), []

    @jax.jit
    def step(g: Any, state: Any) -> Any:
        traces.append(1)
        return tx.update(g, state, PARAMS)

    state = tx.init(PARAMS)
    for value in (0.1, np.float64(0.2), jnp.float32(0.3), 0):
        state = gk.set_hyperparameters(state, {"learning_rate": value})
        u, state = step(GRADS[0], state)
    assert len(traces) == 1 and step._cache_size() == 1
    equal(u, jax.tree.map(jnp.zeros_like, u))


def test_an_eager_update_is_compiled_once():
    built = []

    def factory(learning_rate: float) -> Any:
        built.append(1)
        return gk.sgd(learning_rate)

    tx = gk.tune(factory, learning_rate=0.1)
    state = tx.init(PARAMS)
    _, state = tx.update(GRADS[0], state, PARAMS)
    count = len(built)
    state = gk.set_hyperparameters(state, {"learning_rate": 0.3})
    u, _ = tx.update(GRADS[0], state, PARAMS)
    assert len(built) == count
    close(u["scale"], -0.3 * GRADS[0]["scale"])


def test_a_value_that_is_set_is_that_of_the_plain_one():
    tx = gk.tune(gk.sgd, learning_rate=0.1, momentum=0.9)
    _, state = run(tx, GRADS[:2])
    after = gk.set_hyperparameters(state, {"learning_rate": 0.5, "weight_decay": 0.1})
    plain, before = gk.sgd(0.5, momentum=0.9, weight_decay=0.1), gk.sgd(momentum=0.9)
    _, kept = run(before, GRADS[:2])
    close(run(tx, GRADS[2:], state=after)[0], run(plain, GRADS[2:], state=kept)[0])
    assert gk.hyperparameters(state)["learning_rate"] == jnp.float32(0.1)


def test_schedules_are_those_of_the_recipe():
    warm = optax.linear_schedule(0.0, 0.5, 3)
    for factory, given in [
        (
            gk.adamw,
            {"learning_rate": warm, "b1": lambda t: 0.5 + 0.1 * t.astype(float)},
        ),
        (optax.adamw, {"learning_rate": warm}),
        (lambda learning_rate: gk.sgd(learning_rate), {"learning_rate": warm}),
    ]:
        close(run(gk.tune(factory, **given))[0], run(factory(**given))[0])


def test_a_schedule_may_be_that_of_a_part():
    floor = lambda count: 0.5 / (1 + count.astype(float))
    plain = gk.chain(
        gk.scale_by_adam(0.8),
        gk.scale_by_adam(eps=floor),
        gk.step_by_learning_rate(0.1),
    )
    tx = gk.tune(two_adams, learning_rate=0.1, **{"scale_by_adam_2/eps": floor})
    got, state = run(tx)
    close(got, run(plain)[0])
    assert set(state.scheduled) == {"scale_by_adam_2/eps"}


def test_what_is_scheduled_is_what_the_last_update_had():
    tx = gk.tune(gk.sgd, learning_rate=lambda count: 1.0 + count.astype(float))
    state, got = tx.init(PARAMS), []
    assert gk.hyperparameters(state)["learning_rate"] == 1.0
    for _ in range(3):
        u, state = tx.update(PARAMS, state, PARAMS)
        rate = -u["scale"] / PARAMS["scale"]
        np.testing.assert_allclose(gk.hyperparameters(state)["learning_rate"], rate)
        got.append(float(rate))
    np.testing.assert_allclose(got, [1, 2, 3])


# In others, and others in it


def test_two_in_a_chain_are_read_and_set_apart():
    tx = optax.chain(
        gk.tune(gk.clip_by_global_norm, max_norm=1e3),
        gk.tune(gk.sgd, learning_rate=0.1),
        gk.tune(gk.sgd, learning_rate=0.2),
    )
    state = tx.init(PARAMS)
    found = gk.hyperparameters(state)
    assert {"0/max_norm", "1/learning_rate", "2/learning_rate"} <= set(found)
    values = {"2/learning_rate": 0.3, "max_norm": 2.0}
    state = gk.set_hyperparameters(state, values)
    want = optax.chain(gk.clip_by_global_norm(2.0), gk.sgd(0.1), gk.sgd(0.3))
    close(run(tx, state=state)[0], run(want)[0])
    text = message(lambda: gk.set_hyperparameters(state, {"learning_rate": 0.3}))
    assert text == (
        "gradkit.set_hyperparameters: learning_rate must be the end of one key, got "
        "1/learning_rate, 2/learning_rate. Write one of these in full."
    )


def test_a_name_in_full_is_itself_where_another_ends_so():
    state = gk.tune(two_adams, learning_rate=0.1).init(PARAMS)
    found = gk.hyperparameters(gk.set_hyperparameters(state, {"b1": 0.5}))
    assert found["b1"] == 0.5 and found["scale_by_adam_2/b1"] == jnp.float32(0.9)


def test_two_in_routes_are_read_and_set_apart():
    rules = lambda a, b: gk.route({"kernel": a}, default=b)
    tx = rules(gk.tune(gk.sgd, learning_rate=0.1), gk.tune(gk.adamw, learning_rate=0.2))
    state = gk.set_hyperparameters(tx.init(PARAMS), {"inner/1/learning_rate": 0.4})
    assert gk.hyperparameters(state)["inner/0/learning_rate"] == jnp.float32(0.1)
    close(run(tx, state=state)[0], run(rules(gk.sgd(0.1), gk.adamw(0.4)))[0])


def test_one_within_another_has_its_own():
    inner = lambda learning_rate=0.1: gk.chain(
        gk.clip_by_global_norm(5.0), gk.tune(gk.sgd, learning_rate=0.3)
    )
    tx = gk.tune(inner)
    state = tx.init(PARAMS)
    names = {"learning_rate", "clip_by_global_norm/max_norm", "1/learning_rate"}
    assert names <= set(gk.hyperparameters(state))
    state = gk.set_hyperparameters(state, {"1/learning_rate": 0.6})
    want = gk.chain(gk.clip_by_global_norm(5.0), gk.sgd(0.6))
    close(run(tx, state=state)[0], run(want)[0])


SGD = gk.tune(gk.sgd, learning_rate=0.1)
TREE = jax.tree.map(lambda _: True, SHAPES, is_leaf=lambda x: isinstance(x, tuple))
LABELS = jax.tree.map(lambda _: "all", TREE)
WRAPPERS = {
    "chain": lambda tx: gk.chain(tx, gk.clip_by_global_norm(100.0)),
    "masked": lambda tx: optax.masked(tx, TREE),
    "partition": lambda tx: optax.partition({"all": tx}, LABELS),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "accumulate": lambda tx: gk.accumulate(tx, every=2),
    "guard": gk.guard_by_finite,
    "mix": lambda tx: gk.mix([1.0], tx),
    "flatten": optax.flatten,
    "int8": lambda tx: gk.store_by_int8(tx, block=2),
    "bfloat16": gk.store_by_bfloat16,
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_what_is_around_it_does_not_hide_it(name: str):
    with jax.numpy_dtype_promotion("standard"):
        tx, plain = (WRAPPERS[name](t) for t in (SGD, gk.sgd(0.2)))
        state = gk.set_hyperparameters(tx.init(PARAMS), {"learning_rate": 0.2})
        got, state = run(tx, state=state)
        found = gk.hyperparameters(state)
        (key,) = [k for k in found if k.rpartition("/")[2] == "learning_rate"]
        assert found[key] == jnp.float32(0.2)  # no digit is lost, whatever is stored
        close(got, run(plain)[0])


@pytest.mark.parametrize("make", [optax.MultiSteps, gk.accumulate])
def test_what_is_within_it_may_count_otherwise(make: Any):
    def factory(learning_rate: float) -> Any:
        if make is gk.accumulate:
            return gk.accumulate(gk.adamw(learning_rate), every=2)
        return optax.MultiSteps(gk.adamw(learning_rate), 2).gradient_transformation()

    with jax.numpy_dtype_promotion("standard"):
        tx = gk.tune(factory, learning_rate=0.3)
        state = gk.set_hyperparameters(tx.init(PARAMS), {"learning_rate": 0.1})
        close(run(tx, state=state)[0], run(factory(0.1))[0])


def test_what_rounds_parameters_stays_known_as_such():
    make = lambda learning_rate: gk.chain(gk.adamw(learning_rate), gk.round_by_kahan())
    tx, params = gk.tune(make, learning_rate=0.1), draw(0, jnp.bfloat16)
    grads = [draw(t, jnp.bfloat16) for t in range(1, 4)]
    assert isinstance(tx, Rounding)
    close(run(tx, grads, params)[0], run(make(0.1), grads, params)[0])


# Under the transformations of JAX


@pytest.mark.parametrize("name", ["learning_rate", "b2", "scale_by_adam/eps"])
def test_a_population_is_its_members(name: str):
    values = jnp.float32([0.5, 0.9, 0.99])

    def init(x: Any) -> Any:
        tx = gk.tune(gk.adamw, **{"learning_rate": 0.1, name: x})
        return tx.init(PARAMS)

    tx = gk.tune(gk.adamw, **{"learning_rate": 0.1, name: 1e-3})
    states = jax.vmap(init)(values)
    assert gk.hyperparameters(states)[name].shape == (3,)
    update = jax.jit(jax.vmap(tx.update, in_axes=(None, 0, None)))
    for g in GRADS:
        got, states = update(g, states, PARAMS)
    for i, x in enumerate(values):
        short = {"scale_by_adam/eps": "eps"}.get(name, name)
        want = run(gk.adamw(**{"learning_rate": 0.1, short: float(x)}))[0][-1]
        close(jax.tree.map(lambda y, i=i: y[i], got), want)


def test_a_population_is_set_together_or_apart():
    states = jax.vmap(lambda x: gk.tune(gk.sgd, learning_rate=x).init(PARAMS))(RATES)
    one = gk.set_hyperparameters(states, {"learning_rate": 0.25})
    equal(gk.hyperparameters(one)["learning_rate"], jnp.full(3, 0.25))
    each = gk.set_hyperparameters(states, {"learning_rate": RATES[::-1]})
    equal(gk.hyperparameters(each)["learning_rate"], jnp.asarray(RATES[::-1]))
    put = lambda s, x: gk.set_hyperparameters(s, {"learning_rate": x})
    equal(jax.jit(jax.vmap(put))(states, RATES[::-1]), each)
    equal(
        jax.vmap(put, (None, 0))(SGD.init(PARAMS), RATES[::-1]).hyperparameters[
            "learning_rate"
        ],
        jnp.asarray(RATES[::-1]),
    )
    u, _ = jax.vmap(SGD.update, (None, 0, None))(PARAMS, each, PARAMS)
    close(u["scale"], -PARAMS["scale"] * RATES[::-1])


def test_a_run_is_scanned_and_sets_its_own_rate():
    def step(state: Any, g: Any) -> Any:
        u, state = SGD.update(g, state, PARAMS)
        half = gk.hyperparameters(state)["learning_rate"] / 2
        return gk.set_hyperparameters(state, {"learning_rate": half}), u

    stack = jax.tree.map(lambda *x: jnp.stack(x), *GRADS)
    state, us = jax.lax.scan(step, SGD.init(PARAMS), stack)
    rates = 0.1 * 0.5 ** np.arange(len(GRADS))
    close(us["scale"], -stack["scale"] * rates.astype(np.float32))
    close(gk.hyperparameters(state)["learning_rate"], np.float32(0.1 / 32))


def test_it_is_set_under_jit():
    put = jax.jit(lambda s, x: gk.set_hyperparameters(s, {"learning_rate": x}))
    state = put(SGD.init(PARAMS), 0.3)
    equal(state, gk.set_hyperparameters(SGD.init(PARAMS), {"learning_rate": 0.3}))
    put(state, 0.4), put(state, jnp.float32(0.5))
    assert jax.tree.map(jnp.result_type, state) == jax.tree.map(
        jnp.result_type, SGD.init(PARAMS)
    )


def test_an_array_that_was_given_is_not_donated():
    rate = jnp.float32(0.1)
    tx = gk.tune(gk.sgd, learning_rate=rate)
    step = jax.jit(lambda s: tx.update(PARAMS, s, PARAMS)[1], donate_argnums=0)
    step(step(tx.init(PARAMS)))
    assert not rate.is_deleted() and gk.hyperparameters(tx.init(PARAMS))


def test_in_bfloat16_a_decay_of_0_999_is_none_of_1():
    """As which `optax.inject_hyperparams` has it, so that Adam divides 0 by 0."""
    params, grads = draw(0, jnp.bfloat16), [draw(t, jnp.bfloat16) for t in range(1, 4)]
    given = {"learning_rate": 0.1, "b2": 0.999, "weight_decay": 0.0}
    got, state = run(gk.tune(gk.adamw, **given), grads, params)
    want, _ = run(gk.adamw(**given), grads, params)
    assert gk.hyperparameters(state)["b2"] == jnp.float32(0.999)
    close(jax.tree.map(jnp.float32, got), jax.tree.map(jnp.float32, want), rtol=1e-2)
    with jax.numpy_dtype_promotion("standard"):
        theirs = optax.inject_hyperparams(optax.adamw)(**given)
        assert np.isnan(run(theirs, grads, params)[0][0]["scale"])
        ours = gk.tune(lambda **kw: gk.chain(optax.adamw(**kw)), **given)
        last = run(ours, grads, params)[0][-1]["scale"]
        np.testing.assert_allclose(last, got[-1]["scale"], rtol=1e-2)


def test_an_optimizer_of_nnx_is_read_and_set():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    tx = optax.chain(optax.clip(10.0), SGD)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    grads = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    step = nnx.jit(lambda model, optimizer: optimizer.update(model, grads))
    state = gk.set_hyperparameters(optimizer.opt_state, {"learning_rate": 0.5})
    assert jax.tree.structure(state) == jax.tree.structure(optimizer.opt_state)
    optimizer.opt_state = state
    found = gk.hyperparameters(optimizer.opt_state)
    assert found["1/learning_rate"] == 0.5 and isinstance(
        found["1/learning_rate"], jax.Array
    )
    before = model.kernel[...] + 0.0
    step(model, optimizer)
    close(model.kernel[...], before - 0.5)
    assert gk.hyperparameters(optimizer.opt_state)["1/learning_rate"] == 0.5


def test_a_checkpoint_of_orbax_goes_on(tmp_path: Any):
    tx = gk.tune(two_adams, learning_rate=lambda t: 0.1 / (1 + t.astype(float)))
    _, state = run(tx, GRADS[:2])
    state = gk.set_hyperparameters(state, {"scale_by_adam_2/eps": 0.25})
    with orbax.checkpoint.StandardCheckpointer() as keeper:
        keeper.save(tmp_path / "state", state)
        keeper.wait_until_finished()
        restored = keeper.restore(tmp_path / "state", jax.eval_shape(tx.init, PARAMS))
    equal(restored, state)
    assert gk.hyperparameters(restored)["scale_by_adam_2/eps"] == 0.25
    equal(run(tx, GRADS[2:], state=restored), run(tx, GRADS[2:], state=state))


# What is wrong is named


def branching(learning_rate: float, decay: float = 0.5) -> Any:
    """A factory that reads one of its numbers."""
    return optax.sgd(learning_rate, momentum=decay if decay > 0 else None)


CLIPPED = optax.chain(optax.clip(1.0), gk.tune(gk.sgd, learning_rate=0.1))
TUNE = "gradkit.tune: "
WRONG = {
    "a value of a recipe": (
        lambda: gk.tune(gk.adamw, b2=1.5),
        "gradkit.adamw: b2 must be at least 0 and below 1, got 1.5.",
    ),
    "a value of a part": (
        lambda: gk.tune(gk.muon, **{"scale_by_adam/eps": -1.0}),
        "gradkit.muon: eps must be at least 0, got -1.0.",
    ),
    "a value for optax": (
        lambda: gk.tune(optax.sgd, learning_rate=jnp.ones(3)),
        f"{TUNE}learning_rate must be one number or a schedule, got an array of shape (3,). "
        "Map over it with jax.vmap.",
    ),
    "less than float32": (
        lambda: gk.tune(optax.sgd, learning_rate=jnp.bfloat16(0.1)),
        f"{TUNE}learning_rate must be of at least float32, got bfloat16.",
    ),
    "a schedule": (
        lambda: gk.tune(gk.adamw, learning_rate=lambda: 0.1),
        f"{TUNE}learning_rate, a schedule, must take the updates made so far alone",
    ),
    "an unknown name": (
        lambda: gk.tune(optax.sgd, learnig_rate=0.1),
        f"{TUNE}hyperparameters must be of factory or of what it calls, got 'learnig_rate'. "
        "The closest is 'learning_rate', of accumulator_dtype, learning_rate, momentum",
    ),
    "an unknown part": (
        lambda: gk.tune(two_adams, learning_rate=0.1, **{"scale_by_adam_3/b1": 0.1}),
        f"{TUNE}hyperparameters must be of factory or of what it calls, got "
        "'scale_by_adam_3/b1'. Those called b1 are b1, scale_by_adam/b1, scale_by_adam_2/b1.",
    ),
    "what is made already": (
        lambda: gk.tune(gk.adamw(), learning_rate=0.1),
        f"{TUNE}factory must be a callable that returns a transform, got a transform. Pass it",
    ),
    "what is no factory": (
        lambda: gk.tune("adamw"),
        f"{TUNE}factory must be a callable that returns a transform, got 'adamw'.",
    ),
    "what makes none": (
        lambda: gk.tune(lambda: 3),
        f"{TUNE}what factory returns must be a transform, with init and update, got 3.",
    ),
    "what cannot be traced": (
        lambda: gk.tune(branching, learning_rate=0.1),
        f"{TUNE}decay must be traced, which factory cannot take, got 0.5. Give it as "
        "functools.partial(factory, decay=0.5), so that it is no state.",
    ),
    "a state of another": (
        lambda: SGD.update(PARAMS, gk.sgd().init(PARAMS), PARAMS),
        f"{TUNE}state must be of these parameters and arguments, got",
    ),
}
SET = "gradkit.set_hyperparameters: "
BATCH = jax.vmap(lambda x: gk.tune(gk.sgd, learning_rate=x).init(PARAMS))(RATES)
SET_WRONG = {
    "no name": (
        CLIPPED,
        {"learnig_rate": 0.1},
        "values must be of hyperparameters that the state has, got 'learnig_rate'. The "
        "closest is '1/learning_rate', of 1/learning_rate, 1/momentum, 1/weight_decay.",
    ),
    "half a name": (
        CLIPPED,
        {"rate": 0.1},
        "values must be of hyperparameters that the",
    ),
    "one twice": (
        CLIPPED,
        {"learning_rate": 0.1, "1/learning_rate": 0.2},
        "values must have one number for 1/learning_rate, got two. Leave",
    ),
    "no dict": (CLIPPED, 0.1, "values must be a dict by name, got 0.1. Write"),
    "nothing tuned": (
        optax.sgd(0.1),
        {"learning_rate": 0.1},
        "state must have a hyperparameter that can be set, got none. Build its transform by",
    ),
    "a schedule": (
        gk.tune(gk.sgd, learning_rate=lambda count: 0.1),
        {"learning_rate": 0.2},
        "learning_rate must be a number, got one that is scheduled. Its schedule decides",
    ),
    "a shape": (
        CLIPPED,
        {"learning_rate": jnp.ones(3)},
        "1/learning_rate must be one number, got shape (3,). For a batch of states: "
        "jax.vmap(lambda x: gradkit.set_hyperparameters(state, {'1/learning_rate': x}))(values).",
    ),
    "nan": (
        CLIPPED,
        {"learning_rate": np.nan},
        "1/learning_rate must be finite, got nan.",
    ),
    "infinity": (CLIPPED, {"momentum": np.inf}, "1/momentum must be finite, got inf."),
    "a word": (CLIPPED, {"momentum": "0.1"}, "1/momentum must be a number, got '0.1'."),
    "a bool": (CLIPPED, {"momentum": True}, "1/momentum must be a number, got True."),
    "complex": (CLIPPED, {"momentum": 1j}, "1/momentum must be a number, got 1j."),
    "bfloat16": (
        CLIPPED,
        {"momentum": jnp.bfloat16(0.5)},
        "1/momentum must be of at least float32, got bfloat16.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_named(case: str):
    action, said = WRONG[case]
    assert message(action).startswith(said)


@pytest.mark.parametrize("case", SET_WRONG)
def test_mistakes_in_setting_are_named(case: str):
    tx, values, said = SET_WRONG[case]
    state: Any = tx.init(PARAMS)
    text = message(lambda: gk.set_hyperparameters(state, values))
    assert text.startswith(SET + said), text


def test_a_batch_of_another_length_is_refused():
    text = message(lambda: gk.set_hyperparameters(BATCH, {"momentum": jnp.ones(2)}))
    assert text.startswith(f"{SET}momentum must be of shape (3,), or one number, got")


def test_a_limit_may_be_none():
    state = gk.tune(gk.clip_by_global_norm).init(PARAMS)
    state = gk.set_hyperparameters(state, {"max_norm": np.inf})
    assert gk.hyperparameters(state)["max_norm"] == np.inf


def test_what_optax_reads_in_an_update_is_told():
    def init(params: Any) -> Any:
        return optax.EmptyState()

    def reading(learning_rate: float) -> Any:
        step = lambda g, s, p=None: (g, s) if learning_rate > 0 else (None, s)
        return optax.GradientTransformation(init, step)

    tx = gk.tune(reading, learning_rate=0.1)
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        jax.jit(tx.update)(PARAMS, tx.init(PARAMS), PARAMS)
    (note,) = [n for n in caught.value.__notes__ if n.startswith("gradkit.tune")]
    assert note == (
        "gradkit.tune has traced learning_rate. What cannot be traced is fixed by "
        "functools.partial(factory, name=value)."
    )


def test_params_are_needed_for_a_decay_that_may_be_set():
    tx = gk.tune(gk.sgd, learning_rate=0.1)
    text = message(lambda: tx.update(PARAMS, tx.init(PARAMS)))
    assert text.startswith("gradkit.sgd: params must be passed to update, got None.")
    plain = lambda learning_rate: gk.step_by_learning_rate(learning_rate)
    tx = gk.tune(plain, learning_rate=0.1)
    tx.update(PARAMS, tx.init(PARAMS))


def test_a_reset_belongs_within():
    """Around it what is set is reset as all else."""
    make = lambda learning_rate: gk.reset_by_period(gk.sgd(learning_rate), every=1)
    within = gk.tune(make, learning_rate=0.1)
    around = gk.reset_by_period(SGD, every=1)
    for tx, rate in ((within, 0.2), (around, 0.1)):
        state = gk.set_hyperparameters(tx.init(PARAMS), {"learning_rate": 0.2})
        close(run(tx, state=state)[0], run(gk.sgd(rate))[0])


def test_an_nnx_state_of_an_optimizer_keeps_no_classes():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    tx = gk.measure(gk.tune(gk.sgd))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    params = nnx.state(model, nnx.Param)
    for read in (
        gk.metrics,
        gk.hyperparameters,
        lambda state: gk.set_hyperparameters(state, {"learning_rate": 1.0}),
        lambda state: gk.eval_params(state, params),
    ):
        for state in (nnx.state(optimizer), nnx.state(optimizer)["opt_state"]):
            with pytest.raises(
                TypeError, match=r"got an nnx.State. Pass optimizer.opt_st"
            ):
                read(state)
    assert gk.hyperparameters(optimizer.opt_state)


def test_a_group_is_not_taken_for_another():
    tx = gk.route({"kernel": gk.tune(gk.sgd)}, default=gk.tune(gk.adamw))
    state = tx.init({"kernel": jnp.ones(2), "bias": jnp.ones(2)})
    said = "Those called learning_rate are inner/0/learning_rate, inner/1/learning_rate"
    with pytest.raises(ValueError, match=said):
        gk.set_hyperparameters(state, {"kernel/learning_rate": 0.1})
