"""Every check speaks: which method, which argument or leaf, what was given, what to do."""

import functools
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entry import ENTRIES
from flax.core import FrozenDict

import gradkit as gk
from gradkit._lab import describe
from gradkit.catalogue import METHODS

SIGNED = {("lower_bound", -1)}  # of a loss, which may be negative
NUMBERS = [
    pytest.param(m, name, bad, id=f"{m.name}-{name}={bad}")
    for m in METHODS
    if m.kind  # these ask for a model first, and have tests of their own
    not in ("diagnostic", "init")
    for name, p in inspect.signature(getattr(gk, m.name)).parameters.items()
    if isinstance(p.default, int | float) and not isinstance(p.default, bool)
    for bad in (-1, math.nan, "1")
    if (name, bad) not in SIGNED
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
    text = message(lambda: getattr(gk, method.name)(**{**fixed, name: bad}))
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


PARAMS = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
WRAPPERS = [
    m.name
    for m in METHODS
    for k, p in inspect.signature(getattr(gk, m.name)).parameters.items()
    if k == "inner"
]


@pytest.mark.parametrize("name", [*WRAPPERS, "chain"])
def test_a_factory_that_is_not_called_is_named(name):
    """And what else is no transform, where it is given and not at the first update."""
    what = "inner" if name in WRAPPERS else "each of transforms"
    partly = functools.partial(optax.adamw, 1e-3)
    apart = {
        "chain": "Pass them one by one: *transforms.",
    }.get(name, "Join its transforms: gradkit.chain(*transforms).")
    inners = {
        gk.adamw: "got adamw. Call it, if it makes one: adamw().",
        partly: "got adamw. Call it, if it makes one: adamw().",
        (gk.sgd(), gk.sgd()): f"got a tuple. {apart}",
        0.1: "got 0.1. Pass one of optax or gradkit, made by its factory.",
    }
    for inner, said in inners.items():
        text = message(lambda inner=inner: getattr(gk, name)(inner))
        assert text.startswith(f"gradkit.{name}: {what} must be a transform,"), text
        assert text.endswith(said), text


def test_a_part_of_a_subspace_is_called():
    text = message(lambda: gk.subspace.project(gk.scale_by_adam, 2))
    assert "inner must be a transform" in text and "scale_by_adam()" in text


TREES = {
    "one is missing": ({"w": PARAMS["w"]}, "no leaf b"),
    "one has another name": (
        {"w": PARAMS["w"], "c": PARAMS["b"]},
        "no leaf b, and c besides",
    ),
    "one is too many": ({**PARAMS, "c": {"d": PARAMS["b"]}}, "c/d besides"),
    "all are others": (
        [jnp.ones(1) for _ in range(7)],
        "no leaf b, w, and 0, 1, 2, 3 and 3 more besides",
    ),
    "another container": (FrozenDict(PARAMS), "FrozenDict instead of dict"),
    "none": (None, "no leaf b, w"),
}


@pytest.mark.parametrize(
    "name", ["scale_by_adam", "muon", "clip_by_global_norm", "sgd"]
)
@pytest.mark.parametrize("tree", TREES)
def test_gradients_of_other_parameters_are_told_apart(name, tree):
    tx = getattr(gk, name)()
    grads, said = TREES[tree]
    state = tx.init(PARAMS)
    for update in (tx.update, jax.jit(tx.update)):
        text = message(lambda update=update: update(grads, state, PARAMS))
        assert text == (
            f"gradkit.{name}: updates must be a tree like params, leaf by leaf, got {said}. "
            "Take gradients with respect to these params."
        )


STATES = {
    "swapped with params": (lambda s: PARAMS, lambda s: s, "a tree like the updates"),
    "left out": (lambda s: PARAMS, lambda s: None, "a tree like the updates"),
    "None": (lambda s: None, lambda s: PARAMS, "None"),
    "of another transform": (
        lambda s: optax.EmptyState(),
        lambda s: PARAMS,
        "no leaf ",
    ),
    "a dict, as a checkpoint without a target is": (
        lambda s: as_dict(s),
        lambda s: PARAMS,
        "dict instead of ",
    ),
}


def as_dict(t):
    """Named tuples as dicts, all the way down."""
    if hasattr(t, "_asdict"):
        return {k: as_dict(x) for k, x in t._asdict().items()}
    return tuple(map(as_dict, t)) if isinstance(t, tuple) else t


NAMES = ["adamw", "muon", "scale_by_adam", "average_by_nesterov", "soap", "galore"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", STATES)
def test_a_state_that_is_none_of_these_parameters_is_named(name, case):
    tx, (of_state, of_params, said) = getattr(gk, name)(), STATES[case]
    state = tx.init(PARAMS)
    for update in (tx.update, jax.jit(tx.update)):
        text = message(
            lambda update=update: update(PARAMS, of_state(state), of_params(state))
        )
        start = f"gradkit.{name}: state must be of these parameters and arguments, got "
        assert text.startswith(start + said), text
        assert "Call tx.update(grads, state, params)" in text


@pytest.mark.parametrize(
    "params, said",
    [
        ({"w": PARAMS["w"]}, "no leaf 1/0/mu/b, 1/0/nu/b"),
        ({**PARAMS, "c": PARAMS["b"]}, "1/0/mu/c, 1/0/nu/c besides"),
        (
            {**PARAMS, "w": jnp.ones((5, 3))},
            "shape (5, 3) instead of (4, 3) for leaf 1/0/mu/w",
        ),
    ],
)
def test_a_state_of_other_parameters_is_told_apart(params, said):
    """By the outermost transform that the user made, whose state it is."""
    tx = gk.chain(gk.clip_by_global_norm(), gk.adamw())
    state = tx.init(params)
    for update in (tx.update, jax.jit(tx.update)):
        text = message(lambda update=update: update(PARAMS, state, PARAMS))
        assert text == (
            f"gradkit.chain: state must be of these parameters and arguments, got {said}. "
            "Call tx.update(grads, state, params) with what tx.init(params) made."
        )


def test_what_else_goes_wrong_is_not_blamed_on_the_state():
    def fail(g, state, params=None):
        raise RuntimeError("mine")

    inner = optax.GradientTransformation(lambda p: (), fail)
    tx = gk.chain(gk.scale_by_adam(), inner)
    with pytest.raises(RuntimeError, match="mine"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    tx = gk.adamw()
    text = message(lambda: tx.update(PARAMS, tx.init(PARAMS)))
    assert text.startswith("gradkit.adamw: params must be passed to update"), text


@pytest.mark.parametrize(
    "name, given",
    [
        ("lion_kappa", {"kappa": jnp.sign}),
        ("average_by_lion_kappa", {"kappa": jnp.sign}),
        ("normalize_by_dual_norm", {"roles": lambda path, leaf=None: path}),
        ("normalize_by_polar", {"dtype": jnp.bfloat16}),
        ("muon", {"hidden": lambda path, leaf=None: path}),
        ("transfer_by_gradient_scale", {"rule": lambda path, leaf=None: path}),
        ("adamw", {"mask": lambda params: params}),
    ],
)
def test_callables_that_are_no_schedules_are_named(name, given):
    """`inject_hyperparams` calls what is callable with the number of updates."""
    factory = getattr(gk, name)
    fixed = ENTRIES[name].fixed if name in ENTRIES else {}
    given, argument = {**fixed, **given}, next(iter(given))
    params = {"w": jnp.ones((4, 3))}
    for wrap in (lambda f: f, jax.jit):
        init = wrap(optax.inject_hyperparams(factory)(**given).init)
        text = message(lambda init=init: init(params))
        assert text.startswith(f"gradkit.{name}: {argument} must be no array, got "), (
            text
        )
        assert f'static_args="{argument}"' in text


def test_a_mask_that_was_called_as_a_schedule_is_named():
    """It made one bool of the number of updates, and nothing would decay."""
    by_shape = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    for static in ((), "mask"):
        inject = optax.inject_hyperparams(gk.adamw, static_args=static)
        tx = inject(1e-3, mask=by_shape)
        state = tx.init(PARAMS)
        if static:
            tx.update(PARAMS, state, PARAMS)
        else:
            text = message(lambda tx=tx, s=state: tx.update(PARAMS, s, PARAMS))
            assert text.startswith("gradkit.adamw: mask must be"), text
            assert 'static_args="mask"' in text


@pytest.mark.parametrize(
    "make",
    [
        lambda: gk.reset_by_period(gk.sgd(), only="mu("),
        lambda: gk.precondition_by_paired_factors({"a(": "b"}),
        lambda: gk.route({"a(": gk.sgd()}),
        lambda: gk.view_by_pattern(gk.sgd(), patterns={"a(": "i o -> i o"}),
        lambda: gk.muon(hidden="a("),
    ],
)
def test_expressions_are_read_when_they_are_given(make):
    text = message(make)
    assert (
        text.startswith("gradkit.") and "expression" in text and "(': missing" in text
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda every: gk.accumulate(gk.sgd(), every=every),
        lambda every: gk.reset_by_period(gk.sgd(), every=every),
        lambda every: gk.average_params_by_window(3, every=every),
        lambda every: gk.shrink_by_half_space(warmup=every),
        lambda every: gk.lawn(free_steps=jnp.float32(every)),
    ],
)
def test_counts_are_whole_numbers(make):
    assert "must be a whole number, got 2.5. Choose one." in message(lambda: make(2.5))
    make(2.0), make(2)


def test_what_of_a_model_is_no_parameter_leads_to_those_that_are():
    """As activation functions of Equinox, and the state of dropout of NNX."""
    params, advice = (
        {"w": jnp.ones(2), "act": None},
        "eqx.is_inexact_array) or nnx.state(",
    )
    model, tx = {**params, "act": jax.nn.relu}, gk.chain(gk.adamw())
    assert advice in message(lambda: tx.init(model))
    assert advice in message(lambda: tx.update(params, tx.init(params), model))
    assert advice in message(lambda: tx.init({"count": jnp.uint32(1)}))
    assert "split_real_and" in message(lambda: tx.init(jnp.ones(2, jnp.complex64)))


@pytest.mark.parametrize(
    "name",
    [
        "chain",
        "restore_state",
        "set_hyperparameters",
        "metrics",
        "routes",
        "eval_params",
    ],
)
def test_functions_that_are_no_methods_are_shown(name):
    page = describe.page(name)
    assert page.startswith(f"{name}(") and "Args:\n" in page
    assert max(map(len, page.splitlines())) <= 120


def test_arguments_of_other_libraries_are_translated():
    said = {"lr": "learning_rate", "wd": "weight_decay", "weight_deca": "weight_decay"}
    for name, meant in said.items():
        text = message(lambda name=name: gk.adamw(**{name: 0.1}))
        assert f"'{name}'. Did you mean {meant}? It takes learning_rate," in text
    assert "Did you mean b1 and b2?" in message(lambda: gk.adamw(betas=(0.9, 0.99)))
    assert "'x'. It takes" in message(lambda: gk.adamw(x=1))


def test_a_parametrization_is_inferred():
    for make in (gk.transfer_by_mup, gk.transfer_by_completep, gk.multipliers):
        text = message(lambda make=make: make({"w": 1}))
        assert "parametrization must be what gradkit.infer_parametrization ret" in text
    infer = gk.infer_parametrization
    text = message(lambda: infer(PARAMS, base=16, target=64))
    assert "init must be a function from a size to parameters, got" in text
    text = message(lambda: infer(lambda width: PARAMS, base={"w": 1}, target={"w": 2}))
    assert "init(width) must take **{'w': 1}, got missing a required argument" in text
