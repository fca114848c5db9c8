"""Counters of updates are called `count`, and stop at the last number; schedules go on there.

Those of norms, which are not counted where they are zero, are called `seen` and stop there too.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from entry import ENTRIES, MADE

import gradkit as gk
from gradkit.catalogue import METHODS
from gradkit.testing import Subject

LAST = np.iinfo(np.int32).max
COUNTERS = "count", "seen"
# What is counted now and then, or anew.
EVENTS = "averaged", "micro", "skipped", "skipped_in_a_row"
EVENTS += "happened", "last", "updates"  # of `measure`
RESTING = {"accumulate", "guard_by_spike"}  # whose updates are zeros now and then
HEAVY = {m.name for m in METHODS if m.family == "precondition"}
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in MADE | HEAVY))
    for name in ENTRIES
]
SCHEDULES = {
    "half_life": (gk.schedule_by_half_life(0.9, end=0.9999, steps=10), 0.9999),
    "linear_decay": (gk.schedule_by_linear_decay(2.0, steps=10, warmup=3), 0.0),
    "warmup_stable_decay": (
        gk.schedule_by_warmup_stable_decay(2.0, steps=10, warmup=3, cooldown=4),
        0.0,
    ),
}


def subject(name: str) -> Subject:
    entry = ENTRIES[name]
    return Subject(
        entry.factory, {k: v for k, v in entry.shapes.items() if k != "wide"}
    )


def counts(state: Any) -> list[Any]:
    """The arrays that optax finds under `count` and `seen`; what is stored of them has no scale."""
    found = [x for k in COUNTERS for _, x in optax.tree.get_all_with_path(state, k)]
    return [x for x in found if not isinstance(x, optax.MaskedNode)]


def end(state: Any) -> Any:
    """`state`, whose every counter has come to its last number, one within another too."""

    def leaf(path: Any, x: Any) -> Any:
        is_counter = getattr(path[-1], "name", "") in COUNTERS
        return jnp.int32(LAST) if is_counter else x

    return jax.tree_util.tree_map_with_path(leaf, state)


@pytest.mark.parametrize("name", ENTRIES)
def test_counters_are_called_count(name: str) -> None:
    s = subject(name)
    state = jax.eval_shape(s.tx.init, s.params)
    whole = [
        x for x in jax.tree.leaves(state) if x.shape == () and x.dtype == jnp.int32
    ]
    found = [x for k in EVENTS for _, x in optax.tree.get_all_with_path(state, k)]
    others = [x for x in found if getattr(x, "shape", None) == ()]
    assert len(counts(state)) + len(others) == len(whole)


@pytest.mark.parametrize("name", NAMES)
def test_updates_go_on_at_the_end(name: str) -> None:
    s = subject(name)
    state = s.tx.init(s.params)
    for t in range(4):  # masks that are chosen once are chosen
        _, state = s.update(s.grads(t), state, s.params)
    state = end(state)
    for t in (4, 5):
        u, state = s.update(s.grads(t), state, s.params)
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((u, state)))
        assert name in RESTING or any(np.any(x) for x in jax.tree.leaves(u))
        assert all(x == LAST for x in counts(state))


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_go_on_at_the_end(name: str) -> None:
    schedule, want = SCHEDULES[name]
    for count in (jnp.int32(LAST), jnp.int32(LAST - 1)):
        np.testing.assert_allclose(schedule(count), want, rtol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_drive_a_rate_at_the_end(name: str) -> None:
    schedule, want = SCHEDULES[name]
    tx = gk.adamw(schedule)
    p, g = jnp.zeros(2), jnp.ones(2)
    u, _ = tx.update(g, end(tx.update(g, tx.init(p), p)[1]), p)
    assert np.all(np.isfinite(u)) and bool(np.any(u)) == (want > 0)
