"""The wrapper around every public factory.

Its errors go by its name, whichever of its parts finds them. Its hyperparameters are read, and may
be schedules. And where nobody jits its updates, they are compiled all the same, once.
"""

import contextlib
import difflib
import functools
import inspect
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from gradkit._core import check, numbers, random
from gradkit._core.call import (
    Part,
    are_stacked,
    called,
    calling,
    error,
    is_building,
    part_called,
    within,
)
from gradkit._core.eager import Build, is_eager, of_jax, program
from gradkit._core.mismatch import of_state
from gradkit._core.rate import checked_schedule
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Hyper,
    Params,
    Rate,
    Scalar,
    Transform,
    Updates,
    of_verb,
    wrapper,
)

P = ParamSpec("P")
T = TypeVar("T")
Check = Callable[[str, str, Any], None]  # of a factory, an argument and its value
ELSEWHERE = {  # what other libraries call these
    "lr": ("learning_rate",),
    "wd": ("weight_decay",),
    "betas": ("b1", "b2"),
}
SEVERAL = tuple[AnyTransform, ...]
_factories: weakref.WeakKeyDictionary[Any, Callable[..., Any]] = (
    weakref.WeakKeyDictionary()
)


class ScheduledState(NamedTuple):
    """State of a transform whose hyperparameters are scheduled."""

    count: jax.Array  # updates so far, int32 []
    inner: optax.OptState


def part(make: Callable[P, T]) -> Callable[P, T]:
    """The public function of `gradkit.subspace` that calls `make`; it takes no schedules."""
    return _factory(make, f"subspace.{make.__name__}")


def factory(make: Callable[P, T]) -> Callable[P, T]:
    """The public factory that calls `make`, a method, to build its transform.

    A callable given for an argument of type `Hyper` is a schedule of the updates made so far. The
    method is then built again at each update, with the values of its schedules, and the state is a
    `ScheduledState`, which counts the updates. A schedule for a `Rate` is called by the method. A `model` that is given is read
    here: the method is built for stacks of matrices, and sees every leaf as the model says.
    """
    return _factory(make, make.__name__)


def _factory(make: Callable[P, T], name: str) -> Callable[P, T]:
    signature = inspect.signature(make)
    kinds = {k: _kind(p) for k, p in signature.parameters.items()}
    hypers = {k for k, kind in kinds.items() if _takes(kind, Hyper)}
    varying = hypers | {k for k, kind in kinds.items() if _takes(kind, Rate)}
    checks = {k: _check_of(k, kind) for k, kind in kinds.items()}
    counts = {k for k in varying if isinstance(signature.parameters[k].default, int)}
    checks |= dict.fromkeys(counts, check.whole_number_or_schedule)
    reals = {k: p.default for k, p in signature.parameters.items() if _is_real(p)}

    def build(given: Mapping[str, Any]) -> Any:
        arguments, schedules = dict(given), {}
        for k, x in given.items():
            if callable(x) and k in varying:
                arguments[k] = checked_schedule(name, k, x)
                schedules |= {k: arguments[k]} if k in hypers else {}
            elif x is not None:
                checks[k](name, k, x)
        if (model := arguments.pop("model", None)) is not None:
            return model.shown_to(name, build, arguments, kinds)
        if schedules:
            return of_verb(name, _scheduled(name, build, arguments, schedules))
        bound = inspect.BoundArguments(signature, cast(Any, arguments))
        return of_verb(name, make(*bound.args, **bound.kwargs))

    @functools.wraps(make)
    def public(*args: P.args, **kwargs: P.kwargs) -> T:
        arguments, make_it = _by_name(name, signature, args, kwargs), build
        if (tuned := part_called(make.__name__)) is not None:
            arguments |= _put(tuned, {**reals, **arguments}, reals)
            make_it = within(tuned, build)
        if is_building():
            return _remembered(make, make_it(arguments))
        made = _remembered(make, calling(name, make_it, arguments, building=True))
        if isinstance(made, optax.GradientTransformation):
            stackable = "batch_axes" in kinds
            made = _public(name, cast(Transform, made), make_it, arguments, stackable)
        return cast(T, made)

    cast(Any, public).__signature__ = _without_types(signature)
    cast(Any, public).numbers = frozenset(reals)  # what `gradkit.tune` may tune
    return public


def factory_of(tx: AnyTransform) -> Callable[..., Any] | None:
    """The function of gradkit that made this transform, without what a user's call adds to it."""
    with contextlib.suppress(TypeError):  # an update without weak references
        return _factories.get(tx.update)
    return None


def _remembered(make: Callable[..., Any], made: T) -> T:
    """`made`, of which `factory_of` returns `make`; of those in one another the outermost."""
    if isinstance(made, optax.GradientTransformation):
        with contextlib.suppress(TypeError):
            _factories[made.update] = make
    return made


def _put(
    part: Part, given: Mapping[str, Any], reals: Collection[str]
) -> dict[str, Any]:
    """The real numbers given to a part, each replaced by the number that `gradkit.tune` has for it."""
    known = {k: x for k in reals if (x := given[k]) is not inspect.Parameter.empty}
    return {k: part.put(f"{part.path}{k}", x) for k, x in known.items() if part.path}


def _without_types(signature: inspect.Signature) -> inspect.Signature:
    """Names and defaults, as `help` shows them: what each takes is said below it."""
    empty = inspect.Signature.empty
    parameters = signature.parameters.values()
    short = [p.replace(annotation=empty) for p in parameters]
    return signature.replace(parameters=short, return_annotation=empty)


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
            near = _meant([k for k in kwargs if k not in known], known)
            text = f"{wrong}. {near}It takes {', '.join(_starred(signature))}."
        raise error(TypeError, name, text) from None


def _meant(unknown: Collection[str], known: Collection[str]) -> str:
    """What an unknown argument may be meant for, as a question; empty where nothing is close."""
    for name in unknown:
        near = [k for k in ELSEWHERE.get(name, ()) if k in known]
        if near := near or difflib.get_close_matches(name, known, 1):
            return f"Did you mean {' and '.join(near)}? "
    return ""


def _starred(signature: inspect.Signature) -> list[str]:
    """Names of arguments, with `*` or `**` where any number may be given."""
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [f"{stars.get(p.kind, '')}{k}" for k, p in signature.parameters.items()]


def _scheduled(
    name: str,
    build: Build,
    arguments: Mapping[str, Any],
    schedules: Mapping[str, Callable[..., Any]],
) -> Transform:
    """A transform that is built again at each update, with the values of the schedules then."""

    def at(count: jax.Array) -> Transform:
        now = {k: schedule(count) for k, schedule in schedules.items()}
        tx = calling(called(name), build, {**arguments, **now}, building=True)
        return cast(Transform, optax.with_extra_args_support(tx))

    def init(params: Params) -> ScheduledState:
        count = jnp.zeros([], jnp.int32)
        return ScheduledState(count, at(count).init(params))

    def update(
        updates: Updates, state: ScheduledState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, ScheduledState]:
        tx = at(state.count)
        u, inner = tx.update(updates, state.inner, params, **extra)
        return u, ScheduledState(numbers.increment(state.count), inner)

    return wrapper(init, update)


def _public(
    name: str,
    made: Transform,
    build: Build,
    arguments: Mapping[str, Any],
    stackable: bool,
) -> Transform:
    """`made`, whose errors go by `name`, and whose update is jitted where nobody else does that.

    Inside of `view_by_pattern` it is built again with `batch_axes=(0,)`, if it takes them.
    """
    made = cast(Transform, optax.with_extra_args_support(made))
    stackable = stackable and arguments.get("batch_axes", ()) == ()
    traced = any(isinstance(x, Tracer) for x in arguments.values())

    def here() -> Transform:
        if not (stackable and are_stacked()):
            return made
        stacks = {**arguments, "batch_axes": (0,)}
        tx = calling(called(name), build, stacks, building=True)
        return cast(Transform, optax.with_extra_args_support(tx))

    def run_init(params: Params) -> Any:
        state = here().init(of_jax(params))
        if jax.tree.leaves(state):  # an empty state needs no parameters
            check.given(name, params, "init")
        return state

    def run(updates: Updates, state: Any, params: Params, extra: Mapping[str, Any]):
        given = of_jax(updates), state, of_jax(params)
        try:
            if not (traced or are_stacked()) and is_eager((given, extra)):
                return program(made, build, arguments)(*given, extra)
            return here().update(*given, **extra)
        except Exception as wrong:
            _check_trees(name, here().init, *given, wrong)
            raise

    def init(params: Params) -> Any:
        return calling(name, run_init, params)

    def update(
        updates: Updates, state: Any, params: Params = None, **extra: Extra
    ) -> tuple[Updates, Any]:
        return calling(name, run, updates, state, params, extra)

    init.__qualname__ = f"{name}.init"  # as Python names it where arguments are missing
    return made._replace(init=init, update=update)


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
    about_dtypes = isinstance(wrong, TypeError) and str(wrong).startswith("gradkit.")
    if about_dtypes or str(wrong).startswith(f"gradkit.{name}: {said}"):
        return
    if found := of_state(init, updates, state, params):
        remedy = "Call tx.update(grads, state, params) with what tx.init(params) made."
        raise error(ValueError, name, f"{said}, got {found}. {remedy}") from wrong
    if params is not None and not str(wrong).startswith("gradkit."):
        check.alike(name, updates, params)


def _kind(parameter: inspect.Parameter) -> Any:
    """The type of an argument; a tuple of those given one by one."""
    several = parameter.kind == parameter.VAR_POSITIONAL
    return tuple[parameter.annotation, ...] if several else parameter.annotation


def _takes(kind: Any, one: Any) -> bool:
    """Whether an argument of this type takes that one, or None."""
    return kind in (one, one | None)


def _is_real(parameter: inspect.Parameter) -> bool:
    """Whether an argument takes any real number, also a traced one; counts are whole numbers."""
    is_one = any(_takes(parameter.annotation, kind) for kind in (Hyper, Rate, Scalar))
    return is_one and not isinstance(parameter.default, int)


def _check_of(argument: str, kind: Any) -> Check:
    """The check of an argument whose value is neither None nor a schedule.

    It is a number that can be trusted, a transform that is made, or what
    `optax.inject_hyperparams` has left as it was given.
    """
    if argument == "model":
        return check.reading
    if argument == "parametrization":
        return check.parametrization
    if kind == random.Key and argument == "key":
        return check.key
    if _takes(kind, Hyper) or _takes(kind, Rate):
        return check.number_or_schedule
    if kind == Scalar:
        return check.one_number
    if kind in (int, int | jax.Array):
        return check.whole
    if kind is bool:
        return check.flag
    if _takes(kind, AnyTransform):
        return check.transform
    if kind == SEVERAL:
        return check.transforms
    takes_arrays = kind is float or np.ndarray in get_args(kind)
    return check.anything if takes_arrays else check.not_array
