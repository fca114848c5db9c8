"""Every check speaks: which method, which argument or leaf, what was given, what to do."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entry import ENTRIES

import gradkit as gk
from gradkit.catalogue import METHODS

NUMBERS = [
    pytest.param(m, name, bad, id=f"{m.name}-{name}={bad}")
    for m in METHODS
    if m.kind
    != "diagnostic"  # these ask for a model first, and have tests of their own
    for name, p in inspect.signature(getattr(gk, m.name)).parameters.items()
    if isinstance(p.default, int | float) and not isinstance(p.default, bool)
    for bad in (-1, math.nan, "1")
]
MATRIX_METHODS = [
    "normalize_by_polar",
    "project_by_fira",
    "project_by_svd",
    "retract_by_conditioned_low_rank",
    "retract_by_stiefel",
]


def message(action) -> str:
    """The text of the error that `action` raises."""
    with pytest.raises((ValueError, TypeError)) as caught:
        action()
    return str(caught.value)


@pytest.mark.parametrize("method,name,bad", NUMBERS)
def test_bad_numbers_are_named(method, name, bad):
    fixed = ENTRIES[method.name].fixed if method.name in ENTRIES else {}
    text = message(lambda: getattr(gk, method.name)(**fixed, **{name: bad}))
    assert text.startswith(f"gradkit.{method.name}: {name} must be"), text
    assert f"got {bad!r}" in text, text
    assert text.endswith("."), "it ends in what to do"


@pytest.mark.parametrize("name", ENTRIES)
def test_leaves_that_are_not_real_are_named(name):
    tx = ENTRIES[name].factory()
    params = {k: jnp.zeros(shape) for k, shape in ENTRIES[name].shapes.items()}
    first = next(iter(params))
    for dtype in (jnp.complex64, jnp.int32):
        given = {**params, first: params[first].astype(dtype)}
        text = message(lambda given=given: tx.init(given))
        assert f"leaf {first} " in text and jnp.dtype(dtype).name in text, text
        assert "optax.masked" in text


def test_shapes_that_differ_are_named():
    tx = gk.scale_by_adam()
    params = {"w": jnp.zeros((2, 3))}
    text = message(lambda: tx.update({"w": jnp.zeros((3, 2))}, tx.init(params), params))
    assert text == (
        "gradkit.scale_by_adam: leaf w must have the shape of its parameter (2, 3), "
        "got (3, 2). Take gradients with respect to these params."
    )


def test_missing_params_are_asked_for():
    tx = gk.decay_by_weight()
    g = jnp.zeros(2)
    text = message(lambda: tx.update(g, tx.init(g)))
    assert text == (
        "gradkit.decay_by_weight: params must be passed to update, got None. "
        "Call tx.update(grads, state, params)."
    )


@pytest.mark.parametrize("axes", [0, (5,), (0, -4)])
@pytest.mark.parametrize(
    "name", ["normalize_by_polar", "retract_by_conditioned_low_rank"]
)
def test_batch_axes_are_axes(name, axes):
    """A negative one may be the same as another."""
    tx, p = getattr(gk, name)(batch_axes=axes), {"w": jnp.ones((2, 3, 4, 5))}
    text = message(lambda: tx.update(p, tx.init(p), p))
    assert text.startswith(f"gradkit.{name}: batch_axes must be"), text
    assert f"got {axes}" in text


@pytest.mark.parametrize("name", MATRIX_METHODS)
def test_vectors_are_sent_elsewhere(name):
    tx = ENTRIES[name].factory()
    g = {"bias": jnp.zeros(3)}
    text = message(lambda: tx.update(g, tx.init(g)))
    assert f"gradkit.{name}: leaf bias must have at least 2 axes" in text
    assert "gradkit.route" in text


def test_routes_name_the_leaf_and_the_rules():
    rules = {"kernel": gk.scale_by_adam(), "w": gk.scale_by_adam()}
    text = message(lambda: gk.route(rules).init({"bias": jnp.zeros(2)}))
    assert "leaf bias" in text and "got none" in text and "Add a rule" in text
    text = message(lambda: gk.route(rules).init({"w_kernel": jnp.zeros(2)}))
    assert "leaf w_kernel" in text and "['kernel', 'w']" in text
    assert "exclusive" in text


def test_transfer_names_the_leaf():
    base, target = {"w": jnp.ones((2, 2, 2))}, {"w": jnp.ones((4, 4, 2))}
    text = message(lambda: gk.infer_parametrization(base=base, target=target))
    assert "leaf w" in text and "inputs={'w': (0,)}" in text
    text = message(lambda: gk.infer_parametrization(base=base, target={"v": base["w"]}))
    assert "['v', 'w']" in text
    flat = {"w": jnp.ones(2)}, {"w": jnp.ones(4)}
    text = message(lambda: gk.infer_parametrization(base=flat[0], target=flat[0]))
    assert "differ in a width, got equal shapes" in text and "pass delta" in text
    tx = gk.transfer_by_mup(gk.infer_parametrization(base=flat[0], target=flat[1]))
    text = message(lambda: tx.update({"b": jnp.zeros(2)}, tx.init({})))
    assert "leaf b must be in the parametrization" in text


def test_schedules_name_what_does_not_fit():
    text = message(lambda: gk.schedule_by_linear_decay(1.0, steps=4, warmup=4))
    assert "warmup must be below steps = 4, got 4" in text
    text = message(
        lambda: gk.schedule_by_warmup_stable_decay(1.0, steps=4, warmup=3, cooldown=2)
    )
    assert "warmup + cooldown must be at most steps = 4, got 5" in text


@pytest.mark.parametrize("name", ["scale_by_adam", "muon", "shampoo", "lamb"])
def test_leaves_of_numpy_are_taken_as_jax_takes_them(name):
    """In float32 where float64 is off, without a warning, which would fail here."""
    tx, leaf = getattr(gk, name)(), np.ones((3, 2))
    updates, _ = tx.update({"w": leaf}, tx.init({"w": leaf}), {"w": leaf})
    assert updates["w"].dtype == jnp.float32


JITTED = ["galore", "dion", "psgd", "soap", "shampoo", "clip_by_percentile"]


@pytest.mark.parametrize("name", JITTED)
def test_what_init_must_know_is_named_where_it_is_traced(name):
    """As `inject_hyperparams` makes it of every number that is not in `static_args`."""
    factory, params = getattr(gk, name), {"w": jnp.ones((3, 2))}
    asked = inspect.signature(factory).parameters.keys() & {"learning_rate"}
    tx = optax.inject_hyperparams(factory)(**dict.fromkeys(asked, 0.1))
    text = message(lambda: jax.jit(tx.init)(params))
    assert text.startswith("gradkit.") and "must be known before tracing" in text
    assert "static_args of optax.inject_hyperparams" in text
    tx.init(params)
