"""Which transform gets which leaf: told before it happens, and whatever the leaves are."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradkit as gk

SHAPES = {"wte": (9, 4), "mlp": {"up": (4, 6), "bias": (6,)}, "scale": ()}
SHAPES = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
    SHAPES,
    is_leaf=lambda x: isinstance(x, tuple),
)
PARAMS = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), SHAPES)
MUON = {"wte": "adam", "mlp/up": "matrices", "mlp/bias": "adam", "scale": "adam"}


def labels(tx, params=SHAPES) -> dict[str, str]:
    return {row.path: row.transform for row in gk.routes(tx, params)}


def test_rows_say_where_and_why():
    rows = gk.routes(gk.muon(), SHAPES)
    assert [row.path for row in rows] == ["mlp/bias", "mlp/up", "scale", "wte"]
    assert rows[1] == ("mlp/up", (4, 6), (4, 6), (), "matrices", "a hidden matrix")
    assert rows[2] == ("scale", (), None, (), "adam", "no axis")
    assert len(rows) == 4 and str(rows) == repr(rows)
    assert str(rows).splitlines()[:3] == [
        "path      shape   seen as  transform  why",
        "mlp/bias  (6,)             adam       one axis",
        "mlp/up    (4, 6)  4 x 6    matrices   a hidden matrix",
    ]
    scanned = jax.ShapeDtypeStruct((3, 4, 6), jnp.bfloat16)
    (row,) = gk.routes(gk.galore(batch_axes=(0,)), {"w": scanned})
    assert row.batch == (3,) and "3 of 4 x 6" in str(
        gk.routes(gk.muon(batch_axes=(0,)), [scanned])
    )


WRAPPED = {
    "chain": lambda tx: gk.chain(gk.clip_by_global_norm(), tx),
    "optax.chain": lambda tx: optax.chain(optax.clip(1.0), tx),
    "masked": lambda tx: optax.masked(tx, jax.tree.map(lambda _: True, SHAPES)),
    "partition": lambda tx: optax.partition(
        {"a": tx}, jax.tree.map(lambda _: "a", SHAPES)
    ),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2),
    "share_norm": gk.share_norm,
    "reset_by_period": gk.reset_by_period,
    "flatten in apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_what_a_recipe_decides_is_told_through_any_wrapper(name: str):
    assert labels(WRAPPED[name](gk.muon())) == MUON


@pytest.mark.parametrize("factory", [gk.muon, gk.galore])
def test_injected_hyperparameters_do_not_hide_it(factory):
    """Also where `init` cannot be traced with them; then it is run, for which it needs arrays."""
    tx = optax.inject_hyperparams(factory)(learning_rate=0.1)
    assert labels(tx, PARAMS) == MUON
    if factory is gk.galore:
        with pytest.raises(TypeError, match="known before tracing"):
            gk.routes(tx, SHAPES)


def test_routes_in_routes_and_after_routes():
    inner = gk.route({"mlp": gk.muon(), "scale": gk.sgd()}, default=gk.adamw())
    nested = {
        "mlp/up": "matrices",
        "mlp/bias": "adam",
        "scale": "scale",
        "wte": "default",
    }
    assert labels(inner) == nested
    both = gk.chain(
        gk.route({"wte": optax.clip(1.0)}, default=optax.identity()), gk.muon()
    )
    assert labels(both) == {
        "mlp/up": "default, matrices",
        "mlp/bias": "default, adam",
        "scale": "default, adam",
        "wte": "wte, adam",
    }


def of_scale(path, leaf):
    return leaf.ndim == 0


def test_rules_are_shown_by_their_text_or_name():
    tx = gk.route({"mlp|wte": gk.sgd(), of_scale: gk.adamw()})
    assert labels(tx) == MUON | {k: "mlp|wte" for k in MUON} | {"scale": "of_scale"}
    whys = {row.why for row in gk.routes(tx, SHAPES)}
    assert whys == {"found in its path", "its predicate says so"}


def test_where_nothing_is_routed_one_label_is_enough():
    assert set(labels(gk.adamw()).values()) == {"all"}
    some = optax.masked(gk.muon(), {"wte": False, "mlp": True, "scale": False})
    assert labels(some) == MUON | {"wte": "all", "scale": "all"}


@pytest.mark.parametrize("recipe", [gk.soap, gk.psgd])
def test_matrices_are_told_where_nothing_is_routed(recipe):
    shapes = SHAPES | {
        "query": {"kernel": jax.ShapeDtypeStruct((8, 2, 4), jnp.float32)}
    }
    rows = {row.path: row for row in gk.routes(recipe(), shapes)}
    assert {row.transform for row in rows.values()} == {"all"}
    assert {path: row.matrix for path, row in rows.items()} == {
        "mlp/bias": None,
        "mlp/up": (4, 6),
        "query/kernel": (8, 8),
        "scale": None,
        "wte": (9, 4),
    }
    routed = optax.chain(gk.route({"mlp": recipe()}, default=gk.sgd()), recipe())
    rows = {row.path: row for row in gk.routes(routed, shapes)}
    assert rows["mlp/up"][2:] == ((4, 6), (), "mlp", "found in its path")
    assert rows["query/kernel"][2:] == ((8, 8), (), "default", "no rule matches")


def test_parts_of_a_view_have_rows_of_their_own():
    tx = gk.view_by_pattern(
        gk.muon(batch_axes=(0,)), patterns={"up": "in out=4+2 -> in out"}
    )
    rows = {row.path: (row.matrix, row.transform) for row in gk.routes(tx, SHAPES)}
    assert rows["mlp/up/0"] == ((4, 4), "matrices") and rows["mlp/up/1"][0] == (4, 2)
    assert rows["wte"] == (None, "adam") and len(rows) == 5


def test_nothing_is_computed_and_nothing_stays():
    """A second look sees the same, and building a state in between is not told."""
    state = nnx.state(nnx.Linear(4, 6, rngs=nnx.Rngs(0)), nnx.Param)
    tx = gk.muon()
    first = gk.routes(tx, state)
    tx.init(state)
    huge = {"kernel": jax.ShapeDtypeStruct((1 << 20, 1 << 20), jnp.float32)}
    assert gk.routes(tx, state) == first and labels(tx, huge) == {"kernel": "matrices"}


INT8 = {
    "base": jnp.ones((2, 3), jnp.int8),
    "base_key": jax.random.key(0),
    "lora": jnp.ones((2, 2)),
}


def slopes(p):
    """What `jax.grad` makes of them: `float0` for what has no slope."""
    return jax.grad(lambda p: jnp.sum(p["lora"] ** 2), allow_int=True)(p)


LORA = {"base": optax.set_to_zero(), "lora": gk.adamw()}
PASSING = {
    "route": gk.route(LORA),
    "share_norm": gk.share_norm(gk.route(LORA)),
    "reset_by_period": gk.reset_by_period(gk.route(LORA)),
    "accumulate": gk.accumulate(gk.route(LORA), every=1),
    "guard_by_finite": gk.guard_by_finite(gk.route(LORA)),
    "guard_by_spike": gk.guard_by_spike(gk.route(LORA)),
    "mix": gk.mix([1.0], gk.route(LORA)),
    "graft": gk.graft(gk.route(LORA), gk.route(LORA)),
    "view_by_pattern": gk.view_by_pattern(
        gk.route(LORA), patterns={"lora": "in out -> in out"}
    ),
    "a view of what is no number": gk.view_by_pattern(
        gk.route(LORA), patterns={"base$": "in out=1+2 -> in out"}
    ),
}


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("jitted", [False, True])
def test_leaves_that_are_given_away_may_be_anything(name: str, jitted: bool):
    """As in `optax.partition`, whose updates these are."""
    groups = {"base": "base", "base_key": "base", "lora": "lora"}
    peer = optax.partition(LORA, groups)

    def step(tx, p, state):
        return tx.update(slopes(p), state, p)[0]

    run = (lambda f: jax.jit(f)) if jitted else (lambda f: f)
    got, due = (
        run(lambda p, s, tx=tx: step(tx, p, s))(INT8, tx.init(INT8))
        for tx in (PASSING[name], peer)
    )
    assert jax.tree.map(lambda x: (x.shape, x.dtype), got) == jax.tree.map(
        lambda x: (x.shape, x.dtype), due
    )
    np.testing.assert_allclose(got["lora"], due["lora"], rtol=1e-6)


def test_a_norm_is_of_numbers_only():
    """Integers and what has no slope count as nothing; groups that clip have the norm left."""
    told = []

    def update(g, state, params=None, *, global_norm, **extra):
        told.append(float(global_norm))
        return g, state

    tx = gk.share_norm(optax.GradientTransformationExtraArgs(lambda p: (), update))
    with jax.disable_jit():
        tx.update({"w": jnp.array([3.0, 4.0]), "n": jnp.full(3, 7)}, ())
    tx.update(slopes(INT8), ())
    assert told == [5.0, 4.0]


def test_each_transform_checks_what_it_is_given():
    with pytest.raises(TypeError, match=r"gradkit.adamw: leaf .*base.* int8"):
        gk.route({".": gk.adamw()}).init(INT8)


def test_a_default_takes_what_no_rule_matches_and_no_more():
    tx = gk.route(
        {"mlp": optax.scale(2.0), "up": optax.scale(3.0)}, default=optax.scale(4.0)
    )
    with pytest.raises(
        ValueError, match=r"leaf mlp/up must match exactly one rule, got \['mlp'"
    ):
        tx.init(PARAMS)
    tx = gk.route({"mlp": optax.scale(2.0)}, default=optax.scale(4.0))
    u, _ = tx.update(PARAMS, tx.init(PARAMS))
    assert float(u["mlp"]["bias"][0]) == 2.0 and float(u["scale"]) == 4.0
    with pytest.raises(ValueError, match=r"got none of .* a default"):
        gk.route({"mlp": gk.sgd()}).init(PARAMS)


def test_predicates_see_parameters_where_there_are_some():
    """Gradients of weights in int8 have another dtype than these."""
    tx = gk.route(
        {
            lambda path, x: x.dtype == jnp.float32: gk.sgd(1.0),
            lambda path, x: x.dtype != jnp.float32: optax.set_to_zero(),
        }
    )
    p = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2)}
    g = {"a": jnp.ones(2), "b": jnp.ones(2)}
    u, _ = tx.update(g, tx.init(p), p)
    assert float(u["a"][0]) == 0.0 and float(u["b"][0]) == -1.0


@pytest.mark.parametrize(
    "rules, default, said",
    [
        ({"mlp(": gk.sgd()}, None, r"a rule must be .*, got 'mlp\(': missing \)"),
        ({3: gk.sgd()}, None, "a rule must be .*, got 3"),
        ([gk.sgd()], None, "rules must map"),
        (gk.sgd(), gk.adamw(), "rules must map"),
        ("mlp", gk.adamw(), "rules must map .*, got 'mlp'. Pass a dict such as"),
        ({}, None, "rules must map .*, got {}"),
        (
            {gk.sgd(): "mlp"},
            None,
            "a rule must be .*, got a transform. Rules are the keys",
        ),
        (
            {"mlp": gk.sgd},
            None,
            "what rule 'mlp' sends to must be a transform, .*got sgd. Call it",
        ),
        (
            {"mlp": "mlp"},
            None,
            "what rule 'mlp' sends to must be a transform, .*got 'mlp'",
        ),
        (
            {"mlp": [gk.sgd()]},
            None,
            "what rule 'mlp' .*got a list. Join its transforms",
        ),
        (
            {of_scale: 1e-3},
            None,
            "what rule of_scale sends to must be a transform, .*0.001",
        ),
        ({"mlp": gk.sgd()}, 1e-3, "default must be a transform, .*got 0.001"),
        (
            {"mlp": gk.sgd()},
            gk.sgd,
            r"default must be a transform, .*Call it, .*sgd\(\)",
        ),
        ({lambda path: True: gk.sgd()}, None, "<lambda>, a predicate of path and leaf"),
    ],
)
def test_bad_rules_are_named_where_they_are_given(rules, default, said):
    with pytest.raises((TypeError, ValueError), match=f"gradkit.route: {said}"):
        gk.route(rules, default=default)


def test_a_default_alone_takes_all():
    assert set(labels(gk.route({}, default=gk.sgd())).values()) == {"default"}


def test_a_compiled_expression_is_one():
    tx = gk.route({re.compile("MLP", re.IGNORECASE): gk.muon()}, default=gk.sgd())
    assert labels(tx)["mlp/up"] == "matrices" and labels(tx)["wte"] == "default"
    flat = gk.route({re.compile("mlp"): gk.sgd()}, default=gk.sgd())
    assert labels(flat)["mlp/up"] == "mlp"
    with pytest.raises(ValueError, match=r"must match exactly one .* of \['mlp'\]"):
        gk.route({re.compile("mlp"): gk.sgd()}).init(PARAMS)


def test_a_factory_is_not_looked_into():
    with pytest.raises(TypeError, match=r"gradkit.routes: tx .*got muon. Call it"):
        gk.routes(gk.muon, SHAPES)


def test_a_predicate_must_return_a_bool():
    with pytest.raises(
        ValueError, match=r"gradkit.route: .*bool, got None for leaf mlp"
    ):
        gk.route({lambda path, leaf: None: gk.sgd()}).init(PARAMS)


def test_a_rule_that_matches_no_parameter_is_told():
    """Of its misspelling; not where leaves are masked out, as in a route around it."""
    tx = gk.route({"mlp/upp": gk.muon(), "wte": gk.sgd()}, default=gk.adamw())
    said = "gradkit.route: rule 'mlp/upp' should match a parameter, and matches none. "
    said += "The closest paths are mlp/up"
    with pytest.warns(UserWarning, match=re.escape(said)):
        tx.init(PARAMS)
    table = gk.routes(tx, SHAPES)
    assert len(table) == 4 and str(table).splitlines()[-1].startswith(said)
    outer = gk.route(
        {"mlp": gk.route({"up": gk.sgd(), "x": gk.sgd()}, default=gk.sgd())}, default=tx
    )
    assert gk.routes(outer, SHAPES).unused == ()
    assert gk.routes(gk.muon(), SHAPES).unused == ()
