"""Every transform follows its paper, step by step in float64, and every hyperparameter matters."""

import functools
import numbers

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from entry import ENTRIES, Entry, follow, stream

NUMBERS = [
    pytest.param(entry, name, id=f"{entry.name}-{name}")
    for entry in ENTRIES.values()
    for name, value in entry.hyper.items()
    if isinstance(value, numbers.Real) and not isinstance(value, bool)
]


def run(entry: Entry) -> list[dict[str, np.ndarray]]:
    """What the library does on the entry's stream of gradients and parameters."""
    with jax.enable_x64(True):
        gs, ps = jax.tree.map(jnp.asarray, stream(entry))
        tx = entry.factory()
        update, state, out = jax.jit(tx.update), tx.init(ps[0]), []
        for g, p in zip(gs, ps):
            u, state = update(g, state, p)
            out.append(jax.tree.map(np.asarray, u))
        return out


@functools.cache
def kept(name: str) -> list[dict[str, np.ndarray]]:
    """`run` of the entry as it stands."""
    return run(ENTRIES[name])


@pytest.mark.parametrize("name", ENTRIES)
def test_follows_paper(name: str) -> None:
    for t, (got, want) in enumerate(zip(kept(name), follow(ENTRIES[name])), 1):
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
    value = entry.hyper[name]
    moved = value + 1 if isinstance(value, int) else value * 0.9
    other = run(entry._replace(hyper={**entry.hyper, name: moved}))
    assert any(
        not np.allclose(a[leaf], b[leaf], rtol=1e-6, atol=0)
        for a, b in zip(kept(entry.name), other)
        for leaf in a
    )
