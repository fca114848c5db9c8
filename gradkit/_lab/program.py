"""The training of one recipe at every learning rate from every seed, as pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradkit as gk
from gradkit._lab.tasks import Task

RATES = 1e-36, 1e36  # centres whose whole grid is in the range of float32
Recipe = Callable[..., Any]  # recipe(learning_rate=...) -> transform


class State(NamedTuple):
    """The state of all runs of one recipe; leaves begin with the axes `[rates, seeds]`.

    Leaves that are `common` (update counters, keys) are shared by all runs. They do not depend on
    gradients, and a method's `lax.cond` on its counter stays a branch.
    """

    params: Any
    opt: Any
    losses: jax.Array  # training loss before each step, [steps, rates, seeds]


class Ground(NamedTuple):
    """Initial parameters, data and data order, the same for all recipes."""

    params: Any  # initial, [seeds, ...]
    data: Any  # the training data
    order: jax.Array  # indices of the examples of each step, [steps, seeds, batch]


class Program(NamedTuple):
    """Functions to compile: the initial state, and training from one step to another."""

    begin: Callable[[Ground], State]
    advance: Callable[[State, Ground, Any, Any], State]  # (state, ground, start, stop)


def ground(task: Task, steps: int, seeds: int) -> Ground:
    """Initial parameters and data order for each seed."""
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    params = jax.jit(jax.vmap(task.init))(keys)
    draws = [
        np.random.default_rng(seed).integers(task.train_size, size=(steps, task.batch))
        for seed in range(seeds)
    ]
    return Ground(params, task.train, jnp.asarray(np.stack(draws, axis=1), jnp.int32))


def grid(centre: float, rates: int) -> list[float]:
    """`rates` learning rates, log-spaced over the two decades around `centre`."""
    spread = np.geomspace(0.1, 10, rates) if rates > 1 else np.ones(1)
    return [float(f"{rate:.3g}") for rate in centre * spread]


def schedule(rate: Any, steps: int) -> Callable[[jax.Array], Any]:
    """The schedule of all runs: linear warm-up for a tenth, then linear decay to zero."""
    return gk.schedule_by_linear_decay(rate, steps=steps, warmup=steps // 10)


def program(task: Task, recipe: Recipe, rates: list[float], ground: Ground) -> Program:
    """The training program of `recipe` on `task`, at every rate and seed."""
    grid = np.asarray(rates, np.float32)
    steps, seeds, _ = ground.order.shape
    opt = jax.eval_shape(recipe().init, jax.tree.map(lambda p: p[0], ground.params))
    axes = jax.tree_util.tree_map_with_path(lambda k, x: None if common(k) else 0, opt)

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
        f: Callable[..., Any], by_rate: Any, by_seed: Any, out: Any
    ) -> Callable[..., Any]:
        return jax.vmap(jax.vmap(f, by_seed, out), by_rate, out)

    firsts = runs(first, (0, None), (None, 0), (0, axes))
    move = runs(step, (0, 0, axes, None, None), (None, 0, axes, None, 0), (0, axes, 0))

    def begin(ground: Ground) -> State:
        params, opt = firsts(grid, ground.params)
        losses = jnp.zeros((steps, len(rates), seeds), jnp.float32)
        return State(params, opt, losses)

    def advance(state: State, ground: Ground, start: Any, stop: Any) -> State:
        def body(i: jax.Array, state: State) -> State:
            params, opt, loss = move(
                grid, state.params, state.opt, ground.data, ground.order[i]
            )
            return State(params, opt, state.losses.at[i].set(loss))

        return jax.lax.fori_loop(start, stop, body, state)

    return Program(begin, advance)


def common(path: tuple[Any, ...]) -> bool:
    """Whether all runs share the leaf at this path: an update counter or a key."""
    return jax.tree_util.keystr(path[-1:], simple=True) in {"step", "count", "key"}
