"""Every transform follows its paper, step by step in float64, and every hyperparameter matters.

Of all but preconditioners and what is made of parts, programs are compared with papers that XLA has
optimized. What is made of parts follows its paper at numbers of its own, which it passes on; that
each of them matters is left to `make check-full`.
"""

import functools
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xla
from entry import ENTRIES, MADE, Entry, follow, stream

from gradkit.catalogue import METHODS

LONG = MADE | {m.name for m in METHODS if m.family == "precondition"}
# Updates leave them as they are: what their numbers do to the average, tests/test_compose.py holds.
PASSING_ON = {m.name for m in METHODS if m.family == "average_params"}
NUMBERS = [
    pytest.param(
        entry,
        name,
        id=f"{entry.name}-{name}",
        marks=[pytest.mark.slow] * (entry.name in MADE),
    )
    for entry in ENTRIES.values()
    if entry.name not in PASSING_ON
    for name, value in entry.hyper.items()
    if isinstance(value, numbers.Real) and not isinstance(value, bool)
]
STATIC = {"block", "dimension", "max_size", "rank"}  # whole numbers that are shapes
# Draws in float32 at each update, as its oracle does, which is to be compiled alike.
DRAWN = {"project_by_random_subspace"}
NAMES = [
    pytest.param(name, marks=[pytest.mark.optimized] * (name in DRAWN))
    for name in ENTRIES
]
Run = list[dict[str, np.ndarray]]


def run(
    entry: Entry, update: Callable[..., Any] | None = None, options: Any = None
) -> Run:
    """What the library does on the entry's stream of gradients and parameters."""
    with jax.enable_x64(True):
        gs, ps = jax.tree.map(jnp.asarray, stream(entry))
        tx = entry.factory()
        update = update or jax.jit(tx.update, compiler_options=options)
        state, out = tx.init(ps[0]), []
        for g, p in zip(gs, ps):
            u, state = update(g, state, p)
            out.append(jax.tree.map(np.asarray, u))
        return out


@functools.cache
def as_it_stands(name: str) -> Run:
    """`run` of the entry."""
    return run(ENTRIES[name], options=None if name in LONG else xla.OPTIMIZED)


@functools.cache
def update_of(name: str) -> Callable[..., Any]:
    """The method's update as a function of its hyperparameters, compiled once."""
    entry = ENTRIES[name]

    @jax.jit
    def update(hyper: dict[str, Any], g: Any, state: Any, p: Any) -> Any:
        moved = entry._replace(hyper={**entry.hyper, **hyper})
        return moved.factory().update(g, state, p)

    return update


@functools.cache
def run_with(name: str, moved: str | None = None) -> Run:
    """`run`, with one hyperparameter moved by 10 %, or by one where it is whole.

    Real numbers act in updates alone, whole ones in the first state too.
    """
    entry = ENTRIES[name]
    hyper = {k: v for k, v in entry.hyper.items() if type(v) in (int, float)}
    if isinstance(hyper.get(moved), int):
        hyper[moved] += 1
        entry = entry._replace(hyper={**entry.hyper, moved: hyper[moved]})
        if moved in STATIC:
            return run(entry)
    elif moved is not None:
        hyper[moved] *= 0.9
    with jax.enable_x64(True):
        dtypes = {int: jnp.int32, float: jnp.float64}
        traced = {k: dtypes[type(v)](v) for k, v in hyper.items() if k not in STATIC}
        return run(entry, functools.partial(update_of(name), traced))


@pytest.mark.parametrize("name", NAMES)
def test_follows_paper(name: str) -> None:
    for t, (got, want) in enumerate(zip(as_it_stands(name), follow(ENTRIES[name])), 1):
        for leaf in want:
            np.testing.assert_allclose(
                got[leaf],
                want[leaf],
                rtol=1e-8,
                atol=1e-10,
                err_msg=f"{leaf}, step {t}",
            )


@pytest.mark.parametrize("entry,name", NUMBERS)
def test_every_hyperparameter_matters(entry: Entry, name: str) -> None:
    assert any(
        not np.allclose(a[leaf], b[leaf], rtol=1e-6, atol=0)
        for a, b in zip(run_with(entry.name), run_with(entry.name, name))
        for leaf in a
    )
