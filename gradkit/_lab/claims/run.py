"""Run a transform on a small problem, at many settings and seeds at once."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Tuned(NamedTuple):
    """The best setting of a grid, and its losses."""

    setting: tuple[float, ...]
    losses: np.ndarray  # of seeds not used to choose
    at_edge: bool  # whether the best is at an edge of the grid


def descend(
    tx: optax.GradientTransformation,
    slope: Callable[[Any, Any], Any],
    p: Any,
    inputs: Any,
    watch: Callable[[Any, Any], Any] = lambda p, updates: (),
) -> tuple[Any, Any]:
    """Parameters after one update for each of `inputs`, and the stacked results of `watch`.

    `slope(p, input)` is the gradient; `watch` gets the new parameters and the update.
    """
    tx = optax.with_extra_args_support(tx)

    def move(carry: Any, x: Any) -> tuple[Any, Any]:
        p, state = carry
        updates, state = tx.update(slope(p, x), state, p)
        p = optax.apply_updates(p, updates)
        return (p, state), watch(p, updates)

    (p, _), watched = jax.lax.scan(move, (p, tx.init(p)), inputs)
    return p, watched


def product(f: Callable[..., Any], *axes: Any) -> Any:
    """`f` of every combination of values, with one axis of the result for each of `axes`."""
    for i in reversed(range(len(axes))):
        f = jax.vmap(f, [0 if j == i else None for j in range(len(axes))])
    return jax.jit(f)(*map(jnp.asarray, axes))


def tuned(loss: Callable[..., Any], *grids: Sequence[float], seeds: int) -> Tuned:
    """Choose by the mean over half of the seeds, report the other half.

    `loss` takes one value of each grid, and a seed.
    """
    losses = np.asarray(product(loss, *grids, np.arange(2 * seeds)))
    mean = losses[..., :seeds].mean(axis=-1)
    mean = np.where(np.isfinite(mean), mean, np.inf)
    best = tuple(int(i) for i in np.unravel_index(np.argmin(mean), mean.shape))
    return Tuned(
        tuple(grid[i] for grid, i in zip(grids, best)),
        losses[best][seeds:],
        any(len(g) > 1 and i in (0, len(g) - 1) for g, i in zip(grids, best)),
    )
