"""One recipe at every learning rate from every seed, as one compiled program."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradkit as gk
from gradkit._lab.tasks import Task

Recipe = Callable[..., Any]  # recipe(learning_rate=...) -> transform


class State(NamedTuple):
    """All runs of one recipe; leaves begin with the axes `[rates, seeds]`.

    What is not floating (counters, keys) is one for all runs: no gradient reaches it, and a
    method's `lax.cond` on its counter stays a branch.
    """

    params: Any
    opt: Any
    losses: jax.Array  # training loss before each step, [steps, rates, seeds]


class Sweep(NamedTuple):
    """The compiled program of one recipe, and what it starts from."""

    start: State
    advance: Callable[
        [State, int, int], State
    ]  # from a step to a step; donates its state
    compile_seconds: float
    state_bytes: int  # of one run's optimizer
    parameters: int  # of one run


def grid(centre: float, rates: int) -> list[float]:
    """`rates` learning rates, log-spaced over the two decades around `centre`."""
    spread = np.geomspace(0.1, 10, rates) if rates > 1 else np.ones(1)
    return [float(f"{rate:.3g}") for rate in centre * spread]


def schedule(rate: Any, steps: int) -> Callable[[jax.Array], Any]:
    """The shape all runs share: a tenth of linear warm-up, then linear decay to zero."""
    return gk.schedule_by_linear_decay(rate, steps, steps // 10)


def order(task: Task, steps: int, seeds: int) -> jax.Array:
    """The examples of every step, `[steps, seeds, batch]`: equal for recipes and rates."""
    shape = steps, task.batch
    draws = [
        np.random.default_rng(seed).integers(task.train_size, size=shape)
        for seed in range(seeds)
    ]
    return jnp.asarray(np.stack(draws, axis=1), jnp.int32)


def prepare(
    task: Task, recipe: Recipe, rates: list[float], steps: int, seeds: int
) -> Sweep:
    """Compile the training of `recipe` on `task`, and make its first state."""
    grid = jnp.asarray(rates, jnp.float32)
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    params = jax.jit(jax.vmap(task.init))(keys)
    opt = jax.eval_shape(recipe().init, jax.eval_shape(task.init, keys[0]))
    own = jax.tree.map(lambda x: 0 if _floating(x) else None, opt)

    def optimizer(rate: jax.Array) -> Any:
        return recipe(learning_rate=schedule(rate, steps))

    def first(rate: jax.Array, params: Any) -> tuple[Any, Any]:
        return params, optimizer(rate).init(params)

    def step(
        rate: jax.Array, params: Any, opt: Any, data: Any, indices: jax.Array
    ) -> tuple[Any, Any, jax.Array]:
        batch = task.examples(data, indices)
        loss, grads = jax.value_and_grad(task.loss)(params, batch)
        updates, opt = optimizer(rate).update(grads, opt, params)
        return gk.apply_updates(params, updates), opt, loss

    def runs(
        f: Callable[..., Any], rate: Any, seed: Any, out: Any
    ) -> Callable[..., Any]:
        return jax.vmap(jax.vmap(f, seed, out), rate, out)

    begin = runs(first, (0, None), (None, 0), (0, own))
    move = runs(step, (0, 0, own, None, None), (None, 0, own, None, 0), (0, own, 0))

    def advance(
        state: State, data: Any, indices: jax.Array, start: jax.Array, stop: jax.Array
    ) -> State:
        def body(i: jax.Array, state: State) -> State:
            params, opt, loss = move(grid, state.params, state.opt, data, indices[i])
            return State(params, opt, state.losses.at[i].set(loss))

        return jax.lax.fori_loop(start, stop, body, state)

    losses = jnp.zeros((steps, len(rates), seeds), jnp.float32)
    state = State(*jax.jit(begin)(grid, params), losses)
    fixed = task.train, order(task, steps, seeds)
    clock = time.perf_counter()
    program = (
        jax.jit(advance, donate_argnums=0).lower(state, *fixed, 0, steps).compile()
    )
    seconds = time.perf_counter() - clock

    def run(state: State, start: int, stop: int) -> State:
        return jax.block_until_ready(program(state, *fixed, start, stop))

    sizes = [x.size * x.dtype.itemsize for x in jax.tree.leaves(opt)]
    parameters = sum(x.size for x in jax.tree.leaves(params)) // seeds
    return Sweep(state, run, seconds, sum(sizes), parameters)


def examiner(task: Task, batches: int = 32) -> Callable[[Any], np.ndarray]:
    """Held-out loss of stacked params, `[rates, seeds]`; compiled once for all recipes."""
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


def _floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)
