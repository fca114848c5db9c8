"""What every public factory does besides its method.

Its errors go by its name, whichever of its parts finds them. Its hyperparameters are read, and may
be schedules. And where nobody jits its updates, they are compiled all the same, once.
"""

import functools
import inspect
import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from gradkit._core import check, random, rate
from gradkit._core.call import are_stacked, called, calling, error, is_building
from gradkit._core.mismatch import of_state
from gradkit._core.numbers import increment
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Hyper,
    Params,
    Rate,
    Scalar,
    Transform,
    Updates,
    wrapper,
)

P = ParamSpec("P")
T = TypeVar("T")
Build = Callable[[Mapping[str, Any]], Any]  # of the arguments by name
SEVERAL = tuple[AnyTransform, ...]
PROGRAMS = 256  # compiled updates that are kept


class ScheduledState(NamedTuple):
    """What a transform remembers whose hyperparameters are scheduled."""

    count: jax.Array  # updates so far, int32 []
    inner: optax.OptState


def part(make: Callable[P, T]) -> Callable[P, T]:
    """The public function of `gradkit.subspace` that calls `make`; its numbers are no schedules."""
    return _factory(make, f"subspace.{make.__name__}")


def factory(make: Callable[P, T]) -> Callable[P, T]:
    """The public factory that calls `make`, a method, to build its transform.

    A callable given for an argument of type `Hyper` is a schedule of the updates made so far. The
    method is built anew of the numbers at each update, and the state counts these around what it
    is otherwise. A schedule for a `Rate` is called by the method. A `model` that is given is read
    here: the method is built for stacks of matrices, and sees every leaf as the model says.
    """
    return _factory(make, make.__name__)


def _factory(make: Callable[P, T], name: str) -> Callable[P, T]:
    signature = inspect.signature(make)
    kinds = {k: _kind(p) for k, p in signature.parameters.items()}

    def build(given: Mapping[str, Any]) -> Any:
        arguments = {k: _read(name, k, kinds[k], x) for k, x in given.items()}
        if (model := arguments.pop("model", None)) is not None:
            check.reading(name, model)
            return model.shown_to(name, build, arguments, kinds)
        schedules = {
            k: x
            for k, x in arguments.items()
            if callable(x) and _takes(kinds[k], Hyper)
        }
        if schedules:
            return _scheduled(name, build, arguments, schedules)
        bound = inspect.BoundArguments(signature, cast(Any, arguments))
        return make(*bound.args, **bound.kwargs)

    @functools.wraps(make)
    def public(*args: P.args, **kwargs: P.kwargs) -> T:
        arguments = _by_name(name, signature, args, kwargs)
        if is_building():
            return build(arguments)
        with calling(name, building=True):
            made = build(arguments)
        if not isinstance(made, optax.GradientTransformation):
            return made
        stackable = "batch_axes" in kinds
        return cast(
            T, _public(name, cast(Transform, made), build, arguments, stackable)
        )

    return public


def _by_name(
    name: str, signature: inspect.Signature, args: Any, kwargs: Any
) -> dict[str, Any]:
    """The arguments of a call, or what is wrong with them."""
    try:
        return dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as wrong:
        known = list(signature.parameters)
        by_place = [
            p
            for p in signature.parameters.values()
            if p.kind == p.POSITIONAL_OR_KEYWORD
        ]
        if len(args) > len(by_place) == 1 < len(known):
            what = f"arguments after {known[0]} must be given by name, got {len(args)}"
            text = f"{what} values. Write {name}(..., {known[1]}=...), say."
        else:
            text = f"{wrong}. It takes {', '.join(known)}."
        raise error(TypeError, name, text) from None


def _scheduled(
    name: str,
    build: Build,
    arguments: Mapping[str, Any],
    schedules: Mapping[str, Callable[..., Any]],
) -> Transform:
    """What is built of numbers at each update, those of the `schedules`."""

    def at(count: jax.Array) -> Transform:
        now = {k: schedule(count) for k, schedule in schedules.items()}
        with calling(called(name), building=True):
            tx = build({**arguments, **now})
        return cast(Transform, optax.with_extra_args_support(tx))

    def init(params: Params) -> ScheduledState:
        count = jnp.zeros([], jnp.int32)
        return ScheduledState(count, at(count).init(params))

    def update(
        updates: Updates, state: ScheduledState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, ScheduledState]:
        tx = at(state.count)
        u, inner = tx.update(updates, state.inner, params, **extra)
        return u, ScheduledState(increment(state.count), inner)

    return wrapper(init, update)


def _public(
    name: str,
    made: Transform,
    build: Build,
    arguments: Mapping[str, Any],
    stackable: bool,
) -> Transform:
    """The transform `made` by the factory `name`, in its name.

    One of stacks of matrices, if it is `stackable`, where leaves are such and it was told no axes.
    """
    traced = any(isinstance(x, Tracer) for x in arguments.values())

    def here() -> Transform:
        if not (are_stacked() and stackable) or arguments.get("batch_axes", ()) != ():
            return made
        with calling(called(name), building=True):
            tx = build({**arguments, "batch_axes": (0,)})
        return cast(Transform, optax.with_extra_args_support(tx))

    def init(params: Params) -> Any:
        with calling(name):
            state = here().init(_of_jax(params))
            if jax.tree.leaves(state):  # what remembers nothing needs no parameters
                check.given(name, params, "init")
            return state

    def program() -> Callable[..., Any]:
        arrays = {k: x for k, x in arguments.items() if isinstance(x, jax.Array)}
        rest = [(k, type(x), x) for k, x in arguments.items() if k not in arrays]
        try:
            compiled = _program(build, tuple(rest))
        except TypeError:  # an argument has no hash: a program for this transform alone
            compiled = _own_program(made)
        return functools.partial(compiled, arrays)

    def update(
        updates: Updates, state: Any, params: Params = None, **extra: Extra
    ) -> tuple[Updates, Any]:
        given = (_of_jax(updates), state, _of_jax(params), extra)
        as_is = not (traced or _is_jit_off() or are_stacked())
        eager = as_is and _is_concrete(given)
        with calling(name):
            run = (
                program() if eager else functools.partial(_update, lambda _: here(), {})
            )
            try:
                return run(*given)
            except Exception as wrong:
                _check_trees(name, here().init, *given[:3], wrong)
                raise

    return wrapper(init, update)


@functools.lru_cache(PROGRAMS)
def _program(build: Build, arguments: tuple[tuple[str, type, Any], ...]) -> Any:
    """One update, jitted, of what is built of these arguments and of others that are arrays."""
    known = {k: x for k, _, x in arguments}

    def made(arrays: Mapping[str, jax.Array]) -> Transform:
        with calling(called(""), building=True):
            return build({**known, **arrays})

    return jax.jit(functools.partial(_update, made))


@functools.lru_cache(PROGRAMS)
def _own_program(made: Transform) -> Any:
    """One update of this transform, jitted."""
    return jax.jit(functools.partial(_update, lambda _: made))


def _update(
    made: Callable[[Any], Transform],
    arrays: Any,
    updates: Updates,
    state: Any,
    params: Params,
    extra: Mapping[str, Any],
) -> tuple[Updates, Any]:
    tx = optax.with_extra_args_support(made(arrays))
    return tx.update(updates, state, params, **extra)


def _check_trees(
    name: str,
    init: Callable[[Any], Any],
    updates: Updates,
    state: Any,
    params: Params,
    wrong: Exception,
) -> None:
    """Say so, if what went `wrong` in an update is that it was given trees that do not fit."""
    said = "state must be of these parameters and arguments"
    if str(wrong).startswith(f"gradkit.{name}: {said}"):
        return
    if found := of_state(init, updates, state, params):
        remedy = "Call tx.update(grads, state, params) with what tx.init(params) made."
        raise error(ValueError, name, f"{said}, got {found}. {remedy}") from wrong
    if params is not None and not str(wrong).startswith("gradkit."):
        check.alike(name, updates, params)


def _is_jit_off() -> bool:
    config: Any = jax.config
    return config.jax_disable_jit


def _is_concrete(t: Any) -> bool:
    """Whether every leaf is a number or an array that is known, as a program takes it."""

    def is_known(x: Any) -> bool:
        if isinstance(x, np.ndarray | np.generic):
            return x.dtype != jax.dtypes.float0
        known = isinstance(x, jax.Array) and not isinstance(x, Tracer)
        return known or isinstance(x, numbers.Real)

    return all(map(is_known, jax.tree.leaves(t)))


def _of_jax(t: Any) -> Any:
    """`t`, with the numbers of Python and NumPy as JAX takes them: float64 in float32 unless on."""

    def leaf(x: Any) -> Any:
        if isinstance(x, float) and not isinstance(x, np.generic):
            return jnp.asarray(x, jnp.result_type(float))
        numbers = isinstance(x, np.ndarray | np.generic)
        return jnp.asarray(x) if numbers and x.dtype != jax.dtypes.float0 else x

    return jax.tree.map(leaf, t)


def _kind(parameter: inspect.Parameter) -> Any:
    """The type of an argument; a tuple of those given one by one."""
    several = parameter.kind == parameter.VAR_POSITIONAL
    return tuple[parameter.annotation, ...] if several else parameter.annotation


def _takes(kind: Any, hyper: Any) -> bool:
    """Whether an argument of this type is a hyperparameter of that one, or None."""
    return kind in (hyper, hyper | None)


def _read(name: str, argument: str, kind: Any, value: Any) -> Any:
    """`value`: a number that can be trusted, a schedule where one is taken, a transform that is made.

    What is none of these is as it was given to `optax.inject_hyperparams`.
    """
    may_vary = _takes(kind, Hyper) or _takes(kind, Rate)
    if value is None:
        return value
    if may_vary and callable(value):
        return rate.checked_schedule(name, argument, value)
    if kind == random.Key and argument == "key":
        check.key(name, value)
    elif may_vary or kind == Scalar:
        check.hyperparameter(name, argument, value, may_vary)
    elif kind in (int, int | jax.Array):
        check.whole(name, argument, value)
    elif kind is bool:
        check.flag(name, argument, value)
    elif _takes(kind, AnyTransform):
        check.transform(name, argument, value)
    elif kind == SEVERAL:
        for tx in value:
            check.transform(name, f"each of {argument}", tx)
    elif kind is not float:
        check.not_array(name, argument, value)
    return value
