"""Law 20."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit.testing._compare import numbers, require, same
from gradkit.testing._law import law
from gradkit.testing._subject import Subject


@law(20)
def keys(s: Subject) -> None:
    """The same key gives the same run; where there is a key, another gives another run.

    Where this does not hold, no run can be repeated, or all runs share their noise.
    """
    state = s.run.states[0]
    for t, first in enumerate(s.run.updates):
        again, state = s.step(s.grads(t), state)
        same(f"update {t + 1} of a second run", again, first, tolerance=0)
    key = s.arguments.get("key")
    if key is None:
        return
    mine, other = follow(s, key), follow(s, another(key))
    same("the run with the same key", mine, s.run.updates[:2], tolerance=1e-4)
    differs = [
        np.any(numbers(a) != numbers(b))
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(other))
    ]
    require(any(differs), "a run with another key must differ, got the same updates")


def follow(s: Subject, key: Any) -> list[Any]:
    """The first two updates under a key."""
    tx, out = s.make(key=key), []
    update = jax.jit(lambda g, state: tx.update(g, state, s.params, **s.extra))
    state = jax.jit(tx.init)(s.params)
    for t in range(2):
        updates, state = update(s.grads(t), state)
        out.append(updates)
    return out


def another(key: Any) -> Any:
    """Another key of the same kind: a number, raw data or a typed key."""
    if isinstance(key, int):
        return key + 1
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return jax.random.fold_in(key, 1)
    return jax.random.key_data(jax.random.fold_in(jax.random.wrap_key_data(key), 1))
