"""The compiled training of several runs: hyperparameters and seeds of one program."""

import contextlib
import functools
import math
import reprlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradkit._core import check
from gradkit._core.averages import evaluated
from gradkit._core.call import error
from gradkit._core.measure.sweep_table import cell
from gradkit._core.mismatch import mismatch
from gradkit._core.paths import leaf_paths
from gradkit._core.types import AnyTransform, Params

SHARED = {"step", "count", "key"}  # fields of states that all runs may share
SMALL = 1024  # parameters of a model whose runs a CPU trains together
HeldOut = Callable[[Params], jax.Array]  # parameters -> a number


class Problem(NamedTuple):
    """What is trained; all functions are pure."""

    make_tx: Callable[..., AnyTransform]  # hyperparameters -> transform
    init: Callable[[jax.Array], Params]  # key -> first parameters
    loss: Callable[[Params, Any], jax.Array]  # parameters, batch -> a number
    data: Callable[[jax.Array], Any]  # key -> the batch that it draws

    def check(self, method: str, judges: Mapping[str, HeldOut]) -> None:
        """Refuse losses that are no numbers, by their names, before anything is compiled."""
        params, batch = self._given()
        values = {"loss": jax.eval_shape(self.loss, params, batch)}
        values |= {name: jax.eval_shape(f, params) for name, f in judges.items()}
        for name, value in values.items():
            is_real = name != "loss" or jnp.issubdtype(value.dtype, jnp.floating)
            if getattr(value, "shape", None) != () or not is_real:
                text = f"{name} must return one number, got {value}. Take its mean."
                raise error(TypeError, method, text)

    def check_points(
        self,
        method: str,
        subject: str,
        points: Sequence[Mapping[str, Any]],
        numbers: Sequence[str],
    ) -> None:
        """Refuse points at which `subject`, what makes the transform, makes none that trains.

        It is called with the numbers of each point, which it can read. The first update of a point
        of each program is traced, as in that program: with numbers that it cannot.
        """
        programs: dict[str, Mapping[str, Any]] = {}
        for point in points:
            at = ", ".join(f"{k}={cell(x)}" for k, x in point.items())
            with _blaming(method, f"{subject} must make a transform of {at}"):
                tx = self.make_tx(**point)
            if not check.is_transform(tx):
                text = f"{subject} must return a transform, with init and update, got "
                text = f"{text}{reprlib.repr(tx)}. Return one of optax or gradkit, say."
                raise error(TypeError, method, text)
            static = {k: x for k, x in point.items() if k not in numbers}
            programs[repr(static)] = static
        for static in programs.values():
            make = functools.partial(self.make_tx, **static)
            self._replace(make_tx=make)._trace(method, subject, numbers)

    def _trace(self, method: str, subject: str, numbers: Sequence[str]) -> None:
        """Refuse a transform whose first update fails, or changes what a step starts from."""
        params, batch = self._given()
        loss, grads = jax.eval_shape(jax.value_and_grad(self.loss), params, batch)
        number = jax.ShapeDtypeStruct((), jnp.result_type(float))
        point = dict.fromkeys(numbers, number)

        def update(point: Any, params: Any, opt: Any, grads: Any, loss: Any) -> Any:
            tx = _optimizer(self, point)
            updates, opt = tx.update(grads, opt, params, value=loss)
            return optax.apply_updates(params, updates), opt

        with _blaming(method, f"{subject} must init and update in a jitted step"):
            opt = _state(self, point)
            after = jax.eval_shape(update, point, params, opt, grads, loss)
        for name, old, new in zip(("parameters", "state"), (params, opt), after):
            if (change := _change(old, new)) is not None:
                text = f"{subject} must keep structure, shapes and dtypes of its {name} in "
                text = f"{text}an update, got {change}. Cast what it returns, say."
                raise error(TypeError, method, text)

    def _given(self) -> tuple[Any, Any]:
        """First parameters and a batch, as shapes."""
        key = jax.random.key(0)
        return jax.eval_shape(self.init, key), jax.eval_shape(self.data, key)


@contextlib.contextmanager
def _blaming(method: str, must: str) -> Iterator[None]:
    """Errors within are those of what is named, and say what it said."""
    try:
        yield
    except Exception as found:
        kind = TypeError if isinstance(found, TypeError) else ValueError
        text = f"{must}, got {told(found)}. Change it, or what is tuned of it."
        raise error(kind, method, text) from found


def told(found: Exception) -> str:
    """What an error says, in a line without its full stop."""
    text = " ".join(str(found).split())[:400].rstrip(" .")
    kind = type(found).__name__
    return text if text.startswith("gradkit.") else f"{kind}: {text}" if text else kind


def _change(old: Any, new: Any) -> str | None:
    """A phrase for how a tree of shapes differs from what it was; None if it does not."""
    if jax.tree.structure(old) != jax.tree.structure(new):
        return mismatch(new, old) or "another structure"
    for path, was, now in zip(
        leaf_paths(old), jax.tree.leaves(old), jax.tree.leaves(new)
    ):
        if (was.shape, was.dtype) != (now.shape, now.dtype):
            kinds = f"{now.dtype}{[*now.shape]} instead of {was.dtype}{[*was.shape]}"
            return f"{kinds} for leaf {path}" if path else kinds
    return None


class Runs(NamedTuple):
    """Runs under way; leaves begin with the axis `[runs]`."""

    params: Params
    opt: Any  # counters and keys without this axis where all runs share them
    losses: jax.Array  # before each step, `[runs, steps]`


Judge = Callable[[Runs], np.ndarray]  # a held-out loss of each run, `[runs]`


class Trials(NamedTuple):
    """The compiled training of so many runs at once.

    All functions but `judge` may be called in any thread: they compile nothing.
    """

    runs: int
    put: Callable[[Any, Any], Any]  # seeds and numbers, arrays over runs, on the device
    begin: Callable[[Any], Runs]  # from what was put
    advance: Callable[[Runs, Any, int, int], Runs]  # from step to step; donates runs
    judge: Callable[[HeldOut | None], Judge]  # compiles, in the thread that calls it
    bytes: int  # of memory a device, while a step runs
    state_bytes: int  # of the optimizer state of one run
    seconds: float  # to compile


def best_together(problem: Problem) -> bool:
    """Whether runs are faster as one batch of arrays than one after the other.

    An accelerator is idle with one small model. A CPU is not: XLA multiplies batches of small
    matrices there at two thirds of the speed of single ones, and a condition that differs
    between runs computes both branches.
    """
    if jax.default_backend() != "cpu":
        return True
    params = jax.eval_shape(problem.init, jax.random.key(0))
    return sum(x.size for x in jax.tree.leaves(params)) < SMALL


def trials(problem: Problem, numbers: Sequence[str], steps: int, runs: int) -> Trials:
    """Compile the training of `runs` runs, whose traced hyperparameters are `numbers`.

    A seed has the same first parameters and batches at all numbers. Where there are several
    devices, each has its part of the runs.
    """
    clock = time.perf_counter()
    here, everywhere = _places(runs)
    seeds = jax.ShapeDtypeStruct((runs,), np.int32, sharding=here)
    number = jax.ShapeDtypeStruct((runs,), jnp.result_type(float), sharding=here)
    given = seeds, dict.fromkeys(numbers, number)
    state = _state(problem, given[1])
    own = jax.tree.map(lambda _: False, state)
    shared = _shared(state) if runs > 1 else own
    program = _program(problem, shared, steps)
    try:
        first = jax.eval_shape(program.begin, given)
        jax.eval_shape(program.advance, first, given, 0, 1)
    except ValueError:  # a counter depends on the run, as in a guard
        shared = own
        program = _program(problem, shared, steps)
        first = jax.eval_shape(program.begin, given)
    place: Any = here
    placed = Runs(
        jax.tree.map(lambda _: here, first.params),
        jax.tree.map(lambda is_shared: everywhere if is_shared else here, shared),
        place,
    )
    like = jax.tree.map(_abstract, first, placed)
    start = np.int32(0)
    begin = jax.jit(program.begin, out_shardings=placed).lower(given).compile()
    advance = (
        jax.jit(program.advance, donate_argnums=0, out_shardings=placed)
        .lower(like, given, start, start)
        .compile()
    )
    memory: Any = advance.memory_analysis()
    sizes = [
        getattr(memory, f"{k}_size_in_bytes") for k in ("argument", "output", "temp")
    ]

    def put(seeds: Any, point: Any) -> Any:
        floats = {k: np.asarray(x, number.dtype) for k, x in point.items()}
        return jax.device_put((np.asarray(seeds, np.int32), floats), here)

    @functools.cache
    def judge(held_out: HeldOut | None) -> Judge:
        if held_out is None:
            return lambda runs: np.full(len(runs.losses), np.nan)

        def one(opt: Any, params: Params) -> jax.Array:
            return held_out(evaluated(opt, params))

        each = jax.vmap(one, (_axes(shared), 0))
        compiled = jax.jit(each).lower(like.opt, like.params).compile()
        return lambda runs: np.asarray(compiled(runs.opt, runs.params))

    return Trials(
        runs,
        put,
        begin,
        lambda runs, given, start, stop: advance(
            runs, given, np.int32(start), np.int32(stop)
        ),
        judge,
        sum(sizes) - memory.alias_size_in_bytes,
        sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)),
        time.perf_counter() - clock,
    )


class _Program(NamedTuple):
    """What begins and advances every run, before it is compiled."""

    begin: Callable[[Any], Runs]
    advance: Callable[[Runs, Any, Any, Any], Runs]


def _optimizer(problem: Problem, point: Any) -> Any:
    return optax.with_extra_args_support(problem.make_tx(**point))


def _state(problem: Problem, point: Any) -> Any:
    """The state of one run, as shapes."""

    def first(point: Any, key: jax.Array) -> Any:
        return _optimizer(problem, point).init(problem.init(key))

    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((), x.dtype), point)
    return jax.eval_shape(first, one, jax.random.key(0))


def _shared(state: Any) -> Any:
    """Which leaves of a state may be shared by all runs: counters and keys, by their names.

    A shared counter keeps each `lax.cond` on it a branch.
    """
    name = lambda path: jax.tree_util.keystr(path[-1:], simple=True)
    return jax.tree_util.tree_map_with_path(lambda k, _: name(k) in SHARED, state)


def _axes(shared: Any) -> Any:
    """The axis of runs of each leaf of a state, for `vmap`."""
    return jax.tree.map(lambda is_shared: None if is_shared else 0, shared)


def _program(problem: Problem, shared: Any, steps: int) -> _Program:
    """The program of all runs; of one, without an axis over which products are slower."""
    axes = _axes(shared)

    def first(seed: jax.Array, point: Any) -> tuple[Params, Any]:
        params = problem.init(jax.random.split(jax.random.key(seed))[0])
        return params, _optimizer(problem, point).init(params)

    def step(point: Any, params: Params, opt: Any, key: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(problem.loss)(params, problem.data(key))
        updates, opt = _optimizer(problem, point).update(grads, opt, params, value=loss)
        return optax.apply_updates(params, updates), opt, loss

    def order(seed: jax.Array) -> jax.Array:
        return jax.random.split(jax.random.split(jax.random.key(seed))[1], steps)

    def begin(given: Any) -> Runs:
        params, opt = jax.vmap(first, out_axes=(0, axes))(*given)
        return Runs(params, opt, jnp.full((len(given[0]), steps), jnp.nan))

    def loop(
        move: Any, runs: Runs, point: Any, keys: Any, start: Any, stop: Any
    ) -> Runs:
        def body(i: jax.Array, runs: Runs) -> Runs:
            params, opt, loss = move(point, runs.params, runs.opt, keys[i])
            return Runs(params, opt, runs.losses.at[..., i].set(loss))

        return jax.lax.fori_loop(start, stop, body, runs)

    def advance(runs: Runs, given: Any, start: Any, stop: Any) -> Runs:
        seeds, point = given
        if len(seeds) == 1:
            runs, seed, point = jax.tree.map(lambda x: x[0], (runs, seeds, point))
            run = loop(step, runs, point, order(seed), start, stop)
            return jax.tree.map(lambda x: x[None], run)
        moves = jax.vmap(step, (0, 0, axes, 0), (0, axes, 0))
        keys = jnp.moveaxis(jax.vmap(order)(seeds), 1, 0)  # [steps, runs]
        return loop(moves, runs, point, keys, start, stop)

    return _Program(begin, advance)


def _places(runs: int) -> tuple[NamedSharding, NamedSharding]:
    """Shardings over runs, on as many local devices as divide them, and of what all share."""
    devices = jax.local_devices()
    count = math.gcd(runs, len(devices))
    axes = (AxisType.Auto,)
    mesh = jax.make_mesh((count,), ("runs",), axes, devices=devices[:count])
    spread, alike = PartitionSpec("runs"), PartitionSpec()
    return NamedSharding(mesh, spread), NamedSharding(mesh, alike)


def _abstract(x: Any, place: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
