"""How every factory is called: by name, with numbers that are read, with schedules."""

import inspect
import math
from typing import Any

import cloudpickle
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entry import ENTRIES, MADE

import gradkit as gk
from gradkit._core.factory import ScheduledState
from gradkit._core.types import Hyper, Rate
from gradkit.catalogue import METHODS

FACTORIES = [m.name for m in METHODS if m.kind != "diagnostic"]
RECIPES = [m.name for m in METHODS if m.kind == "recipe"]
NAMED = ("view_by_pattern", "precondition_by_paired_factors")  # of all their leaves
PARAMS = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
GRADS = jax.tree.map(lambda p: jnp.linspace(-1, 2, p.size).reshape(p.shape), PARAMS)


def parameters(name: str) -> list[inspect.Parameter]:
    """The arguments of a factory, in order."""
    make: Any = getattr(gk, name).__wrapped__
    return list(inspect.signature(make).parameters.values())


def hyper(name: str, *kinds: Any) -> dict[str, Any]:
    """The hyperparameters of these kinds that have a number as default."""
    found = [p for p in parameters(name) if p.annotation in kinds]
    return {p.name: p.default for p in found if isinstance(p.default, int | float)}


def message(action: Any) -> str:
    """The text of the error that `action` raises."""
    with pytest.raises((ValueError, TypeError)) as caught:
        action()
    return str(caught.value)


def run(tx: Any, steps: int = 3, params: Any = PARAMS, grads: Any = GRADS) -> Any:
    """The last of some jitted updates, and the last state."""
    state, update = tx.init(params), jax.jit(tx.update)
    updates = None
    for _ in range(steps):
        updates, state = update(grads, state, params)
    return updates, state


@pytest.mark.parametrize("name", FACTORIES)
def test_all_arguments_but_the_first_go_by_name(name: str) -> None:
    _, *others = parameters(name) or [None]
    transforms = name in ("graft", "mix")  # after the first, which are read in order
    by_name = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD
    assert all(p.kind in by_name for p in others) != transforms


def test_a_position_is_refused_with_what_to_write() -> None:
    text = message(lambda: gk.sgd(0.1, 0.9, True))
    assert text == (
        "gradkit.sgd: arguments after learning_rate must be given by name, got 3 values. "
        "Write sgd(..., momentum=...), say."
    )


def test_an_argument_that_is_none_is_refused_with_those_that_are() -> None:
    text = message(lambda: gk.lion(beta=0.9))
    assert text.startswith("gradkit.lion: ") and "'beta'" in text
    assert "It takes learning_rate, b1" in text


@pytest.mark.parametrize("make", [jnp.float32, np.float32, np.array])
@pytest.mark.parametrize("name", RECIPES)
def test_arrays_that_are_known_are_read(name: str, make: Any) -> None:
    text = message(lambda: getattr(gk, name)(make(-1.0)))
    assert text.startswith(f"gradkit.{name}: learning_rate must be at least 0, got -1")


def test_limits_that_are_arrays_are_read() -> None:
    assert "below 1, got 1.5" in message(lambda: gk.adamw(b2=jnp.float32(1.5)))
    assert "above 1, got 1" in message(lambda: gk.retract_by_mirror(jnp.float32(1)))


@pytest.mark.parametrize("name", RECIPES)
def test_less_than_float32_is_refused(name: str) -> None:
    """`b2 = 0.999` is 1 in bfloat16, and Adam would never move."""
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    factory = getattr(gk, name)
    tx = optax.inject_hyperparams(factory)(learning_rate=1e-3)
    for init in (tx.init, jax.jit(tx.init)):
        text = message(lambda init=init: init(params))
        assert text.startswith(f"gradkit.{name}: "), text
        assert "must be of at least float32, got bfloat16" in text
        assert "hyperparam_dtype=jnp.float32" in text


def test_the_remedy_for_bfloat16_helps() -> None:
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    inject = optax.inject_hyperparams(gk.adamw, hyperparam_dtype=jnp.float32)
    updates, _ = run(inject(1e-3, weight_decay=0.0), params=params, grads=params)
    assert np.allclose(updates["w"], -1e-3, rtol=1e-2)


@pytest.mark.parametrize("bad", [True, "0.1", None, [0.1], np.ones(2), 1j])
def test_what_is_no_number_is_refused(bad: Any) -> None:
    if bad is None:  # for what is a number only; elsewhere it stands for nothing given
        return
    text = message(lambda: gk.adamw(b1=bad))
    assert text.startswith("gradkit.adamw: b1 must be one number or a schedule, got")


def test_a_schedule_for_a_length_is_refused() -> None:
    text = message(lambda: gk.galore(every=lambda count: count))
    assert text.startswith("gradkit.galore: every must be one number, got <function")


def each() -> list[Any]:
    """Every method; those made of others, and those that compile long, for check-full."""
    long = MADE | {m.name for m in METHODS if m.family in ("precondition", "subspace")}
    slow = lambda name: [pytest.mark.slow] * (name in long - {"adamw", "galore"})
    return [pytest.param(name, marks=slow(name)) for name in ENTRIES]


@pytest.mark.parametrize("name", each())
def test_a_schedule_is_its_numbers(name: str) -> None:
    entry = ENTRIES[name]
    leaves = list(entry.shapes.items())
    shapes = dict(leaves if name in NAMED else leaves[:1])
    rng = np.random.default_rng(0)
    params, grads = (
        {k: jnp.asarray(rng.normal(size=n), jnp.float32) for k, n in shapes.items()}
        for _ in range(2)
    )
    given = {**hyper(name, Hyper), **entry.hyper}
    numbers = {k: v for k, v in given.items() if k in hyper(name, Hyper)}
    constant = {k: lambda count, v=v: jnp.asarray(v) for k, v in numbers.items()}
    make = entry.factory
    plain, _ = run(make(**numbers), 2, params, grads)
    scheduled, state = run(make(**constant), 2, params, grads)
    for want, got in zip(jax.tree.leaves(plain), jax.tree.leaves(scheduled)):
        np.testing.assert_allclose(got, want, rtol=2e-4, atol=1e-6)
    assert isinstance(state, ScheduledState) == bool(constant)


def test_a_schedule_is_followed_as_inject_hyperparams_does() -> None:
    b1 = optax.linear_schedule(0.5, 0.95, 4)
    for make, name in (
        (gk.adamw, "b1"),
        (gk.muon, "momentum"),
        (gk.scale_by_adam, "b1"),
    ):
        want, _ = run(optax.inject_hyperparams(make)(**{name: b1}), 5)
        got, state = run(make(**{name: b1}), 5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5), got, want)
        assert int(state.count) == 5
        assert not np.allclose(run(make(**{name: 0.5}), 5)[0]["w"], want["w"])


def test_a_clip_may_tighten() -> None:
    clip = gk.clip_by_global_norm(lambda count: jnp.where(count > 0, 1.0, 2.0))
    state, norms = clip.init(GRADS), []
    for _ in range(2):
        updates, state = clip.update(GRADS, state)
        norms.append(float(optax.tree.norm(updates)))
    np.testing.assert_allclose(norms, [2.0, 1.0], rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "galore", "lars", "muon", "psgd", "soap"])
def test_numbers_of_python_are_parameters(name: str) -> None:
    params, grads = {"a": 1.0, "b": 2.0}, {"a": 0.5, "b": -0.5}
    arrays = jax.tree.map(jnp.float32, (params, grads))
    tx = getattr(gk, name)()
    want, _ = tx.update(arrays[1], tx.init(arrays[0]), arrays[0])
    got, _ = tx.update(grads, tx.init(params), params)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(got))


def test_errors_go_by_what_was_called() -> None:
    """Not by a part of it, and in a wrapper by what the wrapper was given."""
    leaf = {"w": jnp.ones((2, 2), jnp.int32)}
    inner = gk.muon(0.1)
    for tx in (inner, gk.share_norm(inner), optax.chain(inner), gk.chain(inner)):
        assert message(lambda tx=tx: tx.init(leaf)).startswith("gradkit.muon: leaf w")
    tx = gk.lamb()
    text = message(lambda: tx.update(GRADS, tx.init(PARAMS)))
    assert text.startswith("gradkit.lamb: params must be passed")
    assert math.isfinite(float(run(gk.lamb())[0]["b"][0]))  # the name is not left set
    assert message(lambda: gk.scale_by_adam(eps=-1)).startswith("gradkit.scale_by_adam")


def test_rates_are_schedules_of_the_method() -> None:
    _, state = run(gk.sgd(optax.constant_schedule(0.1)))
    assert not isinstance(state, ScheduledState)
    assert "learning_rate" in hyper("sgd", Rate)


@pytest.mark.parametrize(
    "schedule,said",
    [
        (lambda: 0.9, "must take the updates made so far alone"),
        (lambda a, b: 0.9, "must take the updates made so far alone"),
        (lambda count: 0.1 if count > 5 else 0.5, "must be a function that JAX can"),
        (float, "must be a function that JAX can trace"),
        (
            lambda count: jnp.ones(3),
            r"must be one number, got an array of shape \(3,\)",
        ),
        (lambda count: jnp.bfloat16(0.5), "must be of at least float32"),
        (lambda count: None, "must be one number, got None"),
        (lambda count: True, "must be one number, got True"),
    ],
)
@pytest.mark.parametrize("name", ["learning_rate", "b1"])
def test_what_is_no_schedule_is_named(name: str, schedule: Any, said: str) -> None:
    with pytest.raises(TypeError, match=f"^gradkit.adamw: {name}.* {said}"):
        run(gk.adamw(**{name: schedule}), 1)


def test_an_error_within_a_schedule_says_which() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run(gk.adamw(b1=lambda count: 1 / 0))
    assert caught.value.__notes__ == ["Raised by the schedule b1 of gradkit.adamw."]


@pytest.mark.parametrize(
    "action,said",
    [
        (lambda: gk.sgd(math.inf), "sgd: learning_rate must be finite, got inf"),
        (lambda: gk.adamw(eps=jnp.float32(jnp.inf)), "adamw: eps must be finite"),
        (lambda: gk.sgd(nesterov="yes"), "sgd: nesterov must be True or False"),
        (lambda: gk.galore(every=2.5), "galore: every must be a whole number"),
        (lambda: gk.galore(rank=jnp.float32(2)), "galore: rank must be a whole number"),
        (lambda: gk.apollo(key=1.5), "apollo: key must be a seed or a key, got 1.5"),
        (lambda: gk.muon(coefficients=()), "muon: coefficients must be one triple"),
        (lambda: gk.muon(coefficients=(1, 2, 3)), "muon: coefficients must be one"),
        (lambda: gk.galore(mask="kernel"), "galore: mask must be True or False"),
        (lambda: gk.chain(), "chain: transforms must be one or more, got none"),
        (lambda: gk.adamw().init(None), "adamw: params must be passed to init"),
        (lambda: gk.routes(gk.muon(), None), "routes: params must be passed to init"),
        (
            lambda: gk.subspace.staggered(every=lambda count: 3),
            "subspace.staggered: every must be one number",
        ),
        (
            lambda: gk.subspace.project(optax.identity(), True),
            "subspace.project: rank must be one number, got True",
        ),
    ],
)
def test_mistakes_are_named(action: Any, said: str) -> None:
    assert message(action).startswith(f"gradkit.{said}")


def test_transforms_can_be_pickled_by_value() -> None:
    for make in (gk.adamw, gk.muon, gk.galore, gk.scale_by_adam):
        want = run(make(), 1)[0]
        got = run(cloudpickle.loads(cloudpickle.dumps(make())), 1)[0]
        jax.tree.map(np.testing.assert_array_equal, got, want)
