"""Compiled programs that train, and evaluate, all runs of a recipe at once."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._lab.program import Ground, Recipe, State, common, program
from gradkit._lab.tasks import Task


class Sweep(NamedTuple):
    """The compiled training of one recipe, its initial state, and its costs."""

    start: State
    advance: Callable[[State, int, int], State]  # (state, start, stop); donates state
    compile_seconds: float
    state_bytes: int  # of one run's optimizer
    parameters: int  # of one run


def prepare(task: Task, recipe: Recipe, rates: list[float], ground: Ground) -> Sweep:
    """Compile the training of `recipe` on `task`, and make its initial state."""
    traced = program(task, recipe, rates, ground)
    start = jax.jit(traced.begin)(ground)
    clock = time.perf_counter()
    lowered = jax.jit(traced.advance, donate_argnums=0).lower(start, ground, 0, 1)
    compiled = lowered.compile()
    seconds = time.perf_counter() - clock

    def advance(state: State, start: int, stop: int) -> State:
        return jax.block_until_ready(compiled(state, ground, start, stop))

    runs = start.losses[0].size
    return Sweep(
        start=start,
        advance=advance,
        compile_seconds=seconds,
        state_bytes=sum(
            _bytes(path, x, runs)
            for path, x in jax.tree_util.tree_leaves_with_path(start.opt)
        ),
        parameters=sum(x.size for x in jax.tree.leaves(start.params)) // runs,
    )


def examiner(task: Task, batches: int = 32) -> Callable[[Any], np.ndarray]:
    """A function: params -> held-out losses `[rates, seeds]`, compiled once for all recipes."""
    count = max(1, min(batches, task.held_out_size // task.batch))
    spread = np.linspace(0, task.held_out_size - 1, count * task.batch)
    indices = jnp.asarray(spread.reshape(count, task.batch), jnp.int32)
    losses = jax.vmap(jax.vmap(task.loss, (0, None)), (0, None))

    @jax.jit
    def examine(params: Any, data: Any) -> jax.Array:
        def batch(indices: jax.Array) -> jax.Array:
            return losses(params, task.examples(data, indices))

        return jnp.mean(jax.lax.map(batch, indices), axis=0)

    return lambda params: np.asarray(examine(params, task.held_out))


def _bytes(path: tuple[Any, ...], x: jax.Array, runs: int) -> int:
    """Bytes of a leaf in one run; a counter that all runs share counts in full."""
    return x.size * x.dtype.itemsize // (1 if common(path) else runs)
