"""Updates that nobody jits, as in a notebook: compiled once, and the same as jitted ones."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entry import ENTRIES
from jax import monitoring

import gradkit as gk
from gradkit.catalogue import METHODS

RECIPES = [m.name for m in METHODS if m.kind == "recipe"]
COMPILED = "/jax/core/compile/backend_compile_duration"
PARAMS = {"w": jnp.ones((6, 4)), "b": jnp.ones(4)}


@pytest.fixture
def compiled() -> Iterator[list[str]]:
    """An entry for each program that is compiled."""
    events: list[str] = []

    def note(event: str, duration: float, **_: Any) -> None:
        if event == COMPILED:
            events.append(event)

    monitoring.register_event_duration_secs_listener(note)
    yield events
    monitoring.unregister_event_duration_listener(note)


def updates(tx: Any, grads: Any = PARAMS, steps: int = 12) -> Iterator[Any]:
    """Eager updates, one after the other."""
    state = tx.init(PARAMS)
    for _ in range(steps):
        u, state = tx.update(grads, state, PARAMS)
        yield u


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_is_compiled_after_the_first_updates(
    name: str, compiled: list[str]
) -> None:
    run = updates(getattr(gk, name)())
    next(run), next(run)
    first = len(compiled)
    for _ in run:
        pass
    assert first and len(compiled) == first


@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.inject_hyperparams(gk.muon)(0.1),
        lambda: optax.chain(optax.clip(1.0), gk.galore(rank=2, every=2)),
        lambda: gk.route({"w": gk.soap()}, default=gk.adamw()),
        lambda: gk.muon(optax.linear_schedule(0.1, 0.0, 9), momentum=lambda n: 0.9),
        lambda: gk.share_norm(gk.clip_by_global_norm()),
    ],
)
def test_nor_inside_of_others(make: Any, compiled: list[str]) -> None:
    run = updates(make())
    list(itertools.islice(run, 3))
    first = len(compiled)
    for _ in run:
        pass
    assert len(compiled) == first


def test_nor_for_a_transform_made_anew(compiled: list[str]) -> None:
    list(updates(gk.muon(0.1), steps=2))
    first = len(compiled)
    list(updates(gk.muon(0.1), steps=2))
    assert len(compiled) == first


def test_it_is_what_jit_does() -> None:
    grads = {"w": jnp.arange(24.0).reshape(6, 4), "b": jnp.arange(4.0)}
    for name in ("adamw", "muon", "soap"):
        tx = getattr(gk, name)()
        want, _ = jax.jit(tx.update)(grads, tx.init(PARAMS), PARAMS)
        (got,) = updates(tx, grads, 1)
        jax.tree.map(np.testing.assert_array_equal, got, want)


def test_extras_that_are_functions_are_passed_on() -> None:
    def update(g: Any, s: Any, p: Any = None, *, f: Any, **_: Any) -> Any:
        return jax.tree.map(f, g), s

    inner = optax.GradientTransformationExtraArgs(lambda p: (), update)
    tx = gk.chain(inner, gk.scale_by_adam())
    u, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, f=jnp.negative)
    assert float(u["b"][0]) == pytest.approx(-1)


def test_every_method_has_one_program() -> None:
    assert all(hasattr(getattr(gk, name), "__wrapped__") for name in ENTRIES)
