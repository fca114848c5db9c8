"""Training at many hyperparameters from many seeds, in one compiled program."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradkit._core.measure import experiment
from gradkit._core.types import AnyTransform, Params

SHARED = {"step", "count", "key"}  # fields of states that all runs may share


class Problem(NamedTuple):
    """What is trained; all functions are pure."""

    make_tx: Callable[..., AnyTransform]  # hyperparameters -> transform
    init: Callable[[jax.Array], Params]  # key -> first parameters
    loss: Callable[[Params, Any], jax.Array]  # parameters, batch -> a number
    data: Callable[[jax.Array], Any]  # key -> the batch that it draws
    held_out: Callable[[Params], jax.Array] | None  # parameters -> a number


class Runs(NamedTuple):
    """Runs under way; leaves begin with the axes `[points, seeds]`."""

    params: Params
    opt: Any  # counters and keys without these axes where all runs share them
    losses: jax.Array  # before each step, `[points, seeds, steps]`


class Trials(NamedTuple):
    """The compiled training of so many points at once."""

    begin: Callable[[Any], Runs]  # numbers of the points, by name
    advance: Callable[
        [Runs, Any, int, int], Runs
    ]  # from step to step; donates the runs
    held_out: Callable[[Runs], np.ndarray]  # `[points, seeds]`, nan without such a loss
    bytes: int  # of memory a device, while a step runs


class Program(NamedTuple):
    """Functions of all runs, to compile."""

    begin: Callable[[Any], Runs]
    advance: Callable[[Runs, Any, Any, Any], Runs]


def trials(
    problem: Problem, numbers: Sequence[str], seeds: int, steps: int, points: int
) -> Trials:
    """Compile the training of `points` points, whose traced hyperparameters are `numbers`.

    Every seed draws the same first parameters and batches at every point. Where there are several
    devices, each has its part of the points.
    """
    here, everywhere = _places(points)
    number = jax.ShapeDtypeStruct((points,), jnp.result_type(float), sharding=here)
    point = dict.fromkeys(numbers, number)
    shared = _shared(problem, point)
    program = _program(problem, point, shared, (points, seeds, steps))
    try:
        runs = jax.eval_shape(
            program.advance, jax.eval_shape(program.begin, point), point, 0, 1
        )
    except ValueError:  # a counter depends on the run, as in a guard
        shared = jax.tree.map(lambda _: False, shared)
        program = _program(problem, point, shared, (points, seeds, steps))
        runs = jax.eval_shape(program.begin, point)
    place: Any = here
    placed = Runs(
        jax.tree.map(lambda _: here, runs.params),
        jax.tree.map(lambda is_shared: everywhere if is_shared else here, shared),
        place,
    )
    begin = jax.jit(program.begin, out_shardings=placed)
    advance = jax.jit(program.advance, donate_argnums=0, out_shardings=placed)
    compiled = advance.lower(
        jax.tree.map(_abstract, runs, placed), point, 0, 1
    ).compile()
    memory: Any = compiled.memory_analysis()
    parts = [
        getattr(memory, f"{k}_size_in_bytes") for k in ("argument", "output", "temp")
    ]

    def put(point: Any) -> Any:
        return {
            k: jax.device_put(x.astype(number.dtype), here) for k, x in point.items()
        }

    def held_out(runs: Runs) -> np.ndarray:
        if problem.held_out is None:
            return np.full((points, seeds), np.nan)
        return np.asarray(jax.jit(jax.vmap(jax.vmap(problem.held_out)))(runs.params))

    return Trials(
        lambda point: begin(put(point)),
        lambda runs, point, start, stop: compiled(runs, put(point), start, stop),
        held_out,
        sum(parts) - memory.alias_size_in_bytes,
    )


def _optimizer(problem: Problem, point: Any) -> Any:
    return optax.with_extra_args_support(problem.make_tx(**point))


def _shared(problem: Problem, point: Any) -> Any:
    """Which leaves of a state may be shared by all runs: counters and keys, by their names.

    A shared counter keeps each `lax.cond` on it a branch.
    """

    def first(point: Any, key: jax.Array) -> Any:
        return _optimizer(problem, point).init(problem.init(key))

    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((), x.dtype), point)
    state = jax.eval_shape(first, one, jax.random.key(0))
    name = lambda path: jax.tree_util.keystr(path[-1:], simple=True)
    return jax.tree_util.tree_map_with_path(lambda k, _: name(k) in SHARED, state)


def _program(
    problem: Problem, point: Any, shared: Any, shape: tuple[int, int, int]
) -> Program:
    """What trains every run, before it is compiled; `shape` is that of the losses."""
    points, seeds, steps = shape
    axes = jax.tree.map(lambda is_shared: None if is_shared else 0, shared)
    by_point = dict.fromkeys(point, 0)
    for_params, for_batches = jax.vmap(jax.random.split, out_axes=1)(
        experiment.keys(seeds)
    )
    drawing = jax.vmap(lambda key: jax.random.split(key, steps))(for_batches)

    def first(point: Any, key: jax.Array) -> tuple[Params, Any]:
        params = problem.init(key)
        return params, _optimizer(problem, point).init(params)

    def step(point: Any, params: Params, opt: Any, batch: Any) -> Any:
        loss, grads = jax.value_and_grad(problem.loss)(params, batch)
        updates, opt = _optimizer(problem, point).update(grads, opt, params, value=loss)
        return optax.apply_updates(params, updates), opt, loss

    def mapped(f: Any, by_seed: Any, by_point: Any, out: Any) -> Any:
        return jax.vmap(jax.vmap(f, by_seed, out), by_point, out, axis_size=points)

    firsts = mapped(first, (None, 0), (by_point, None), (0, axes))
    moves = mapped(step, (None, 0, axes, 0), (by_point, 0, axes, None), (0, axes, 0))

    def begin(point: Any) -> Runs:
        params, opt = firsts(point, for_params)
        return Runs(params, opt, jnp.full(shape, jnp.nan))

    def advance(runs: Runs, point: Any, start: Any, stop: Any) -> Runs:
        def body(i: jax.Array, runs: Runs) -> Runs:
            batch = jax.vmap(problem.data)(drawing[:, i])
            params, opt, loss = moves(point, runs.params, runs.opt, batch)
            return Runs(params, opt, runs.losses.at[:, :, i].set(loss))

        return jax.lax.fori_loop(start, stop, body, runs)

    return Program(begin, advance)


def _places(points: int) -> tuple[NamedSharding, NamedSharding]:
    """Shardings over points, on as many local devices as divide them, and of what all share."""
    devices = jax.local_devices()
    count = math.gcd(points, len(devices))
    axes = (AxisType.Auto,)
    mesh = jax.make_mesh((count,), ("points",), axes, devices=devices[:count])
    spread, alike = PartitionSpec("points"), PartitionSpec()
    return NamedSharding(mesh, spread), NamedSharding(mesh, alike)


def _abstract(x: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
