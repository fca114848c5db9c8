"""Weight decay: what it spares, and that nobody asks for params that it does not take from."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradkit as gk
from gradkit.catalogue import METHODS

FACTORIES = {m.name: getattr(gk, m.name) for m in METHODS if m.kind != "diagnostic"}
ARGUMENTS = {k: inspect.signature(f).parameters for k, f in FACTORIES.items()}
DECAYING = [k for k, found in ARGUMENTS.items() if "weight_decay" in found]
MASKED = [k for k in DECAYING if "mask" in ARGUMENTS[k]]
RECIPES = [m.name for m in METHODS if m.kind == "recipe" and m.name in DECAYING]
PARAMS = {
    "a": {
        "kernel": jnp.linspace(1, 2, 12).reshape(4, 3),
        "bias": jnp.linspace(1, 2, 3),
    },
    "b": {
        "kernel": jnp.linspace(2, 3, 12).reshape(3, 4),
        "bias": jnp.linspace(1, 3, 4),
    },
}
GRADS = jax.tree.map(lambda p: jnp.sin(7 * p), PARAMS)


def by_shape(params: Any) -> Any:
    """What many pass: matrices decay."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def update(name: str, **hyper: Any) -> Any:
    """The second update, which all decay in."""
    tx = FACTORIES[name](**hyper)
    state, step = tx.init(PARAMS), jax.jit(tx.update)
    _, state = step(GRADS, state, PARAMS)
    return step(GRADS, state, PARAMS)[0]


def test_every_recipe_that_decays_has_a_mask() -> None:
    assert set(RECIPES) <= set(MASKED)


UNLIKE = {"adamw", "galore", "innaprop", "lamb", "lars", "muon", "novograd", "soap"}


def each() -> list[Any]:
    """Every recipe; those that decay as another does for check-full."""
    slow = lambda name: [] if name in UNLIKE else [pytest.mark.slow]
    return [pytest.param(name, marks=slow(name)) for name in RECIPES]


@pytest.mark.parametrize("name", each())
def test_a_mask_spares_what_it_says(name: str) -> None:
    every, none = update(name, weight_decay=0.5), update(name, weight_decay=0.0)
    trees = {"bias spared": by_shape, "as a tree": by_shape(PARAMS)}
    for what, mask in trees.items():
        got = update(name, weight_decay=0.5, mask=mask)
        for layer in PARAMS:
            close(got[layer]["kernel"], every[layer]["kernel"], what)
            close(got[layer]["bias"], none[layer]["bias"], what)
            assert not np.allclose(every[layer]["bias"], none[layer]["bias"], rtol=1e-3)
    branch = update(name, weight_decay=0.5, mask={"a": True, "b": False})
    jax.tree.map(close, branch, {"a": every["a"], "b": none["b"]})


def close(got: Any, want: Any, what: str = "") -> None:
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6, err_msg=what)


def test_a_mask_is_a_function_of_parameters_alone() -> None:
    with pytest.raises(
        TypeError, match=r"function of \(path, x\)\. Only gradkit.route"
    ):
        gk.adamw(mask=lambda path, x: x.ndim > 1)
    gk.adamw(mask=lambda params, deep=True: params)


@pytest.mark.parametrize(
    "mask", [{"a": True}, lambda p: {"a": 1, "b": 0}, by_shape({"a": jnp.ones(2)})]
)
def test_a_mask_of_another_tree_is_named(mask: Any) -> None:
    with pytest.raises(TypeError, match=r"^gradkit.adamw: mask must be True or False"):
        update("adamw", mask=mask)


@pytest.mark.parametrize("zero", [0, jnp.float32(0)])
@pytest.mark.parametrize("name", RECIPES)
def test_without_decay_params_are_needed_for_their_own_sake(
    name: str, zero: Any
) -> None:
    tx = FACTORIES[name](weight_decay=zero)
    state = tx.init(PARAMS)
    said = FACTORIES[name].__doc__.partition("Needs:")[2]
    if said.startswith(" params") and not said.startswith(" params, unless"):
        with pytest.raises(ValueError, match=f"^gradkit.{name}: params must be"):
            jax.eval_shape(tx.update, GRADS, state)
        return
    shapes = jax.eval_shape(lambda g, s: tx.update(g, s)[0], GRADS, state)
    assert jax.tree.structure(shapes) == jax.tree.structure(GRADS)


def test_few_recipes_need_params_without_decay() -> None:
    said = {k: FACTORIES[k].__doc__.partition("Needs:")[2] for k in RECIPES}
    need = {k for k, text in said.items() if text.startswith(" params.")}
    assert need == {
        *(
            "adamp",
            "innaprop",
            "lamb",
            "lars",
            "lorp",
            "madgrad",
            "schedule_free_adamw",
            "sgdp",
        ),
        "stable_spam",
    }


@pytest.mark.parametrize("name", [k for k in DECAYING if k.startswith("decay_by")])
def test_a_decay_of_nothing_is_the_identity(name: str) -> None:
    required = {
        "parametrization": gk.Parametrization({}),
        "inner": optax.identity(),
    }
    found = {k: x for k, x in required.items() if k in ARGUMENTS[name]}
    tx = FACTORIES[name](**found, weight_decay=0.0)
    updates, state = tx.update(GRADS, tx.init(PARAMS))
    jax.tree.map(np.testing.assert_array_equal, updates, GRADS)
    assert int(state.count) == 1
    scheduled = FACTORIES[name](**found, weight_decay=lambda count: 0.0)
    with pytest.raises(ValueError, match="params must be passed"):
        scheduled.update(GRADS, scheduled.init(PARAMS))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_that_of_optax(momentum: float, nesterov: bool) -> None:
    ours = gk.sgd(0.1, momentum=momentum, nesterov=nesterov)
    theirs = optax.sgd(0.1, momentum, nesterov)
    a, b = ours.init(PARAMS), theirs.init(PARAMS)
    for t in range(4):
        grads = jax.tree.map(lambda g, t=t: g * (t - 1.5), GRADS)
        got, a = ours.update(grads, a)
        want, b = theirs.update(grads, b)
        jax.tree.map(close, got, want)
