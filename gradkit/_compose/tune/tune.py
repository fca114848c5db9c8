"""Hyperparameters in the state of a transform, to be read and set while it runs."""

import functools
import inspect
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from gradkit._core import check, numbers, rate
from gradkit._core.call import Part, calling, error, within
from gradkit._core.factory import factory as public
from gradkit._core.tuned import TunedState, closest
from gradkit._core.types import AnyTransform, Extra, Params, Transform, Updates

UNTRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
FIX = "What cannot be traced is fixed by functools.partial(factory, name=value)."
Values = Mapping[str, Any]  # of hyperparameters, by name


@public
def tune(factory: Callable[..., AnyTransform], /, **hyperparameters: Any) -> Transform:
    r"""Keep every float hyperparameter of a transform in its state, so that a run can set it.

    $$u_t, s_t = \mathrm{factory}(h_t).\mathrm{update}(g_t, s_{t-1}), \qquad
      h_t^k = \begin{cases} \mathrm{schedule}^k(t - 1) & k \text{ is scheduled} \\
      h_{t-1}^k & \text{else} \end{cases}$$

    These are the numbers given here, the defaults of `factory` that are floats, and the numbers of
    the gradkit factories that it calls, unless they are computed from others. Read them by
    `gk.hyperparameters(state)` and set them by `gk.set_hyperparameters(state, values)`, from the
    state of any chain; nothing is retraced or recompiled. Bools, whole numbers, strings,
    predicates and None are passed to `factory` as they are.

    Args:
        factory: any callable that returns a transform and takes its arguments by name: `gk.muon`,
            `optax.adamw`, `lambda learning_rate: gk.chain(...)`. An argument that
            `functools.partial` has fixed is not kept in the state.
        hyperparameters: arguments of `factory` by name, and arguments of the factories that it
            calls by path, such as `scale_by_adam/eps`, or `scale_by_adam_2/eps` for the second
            call. Each is a number, which may be traced, or a schedule of the updates so far.

    Needs: what the transform needs; params also at a `weight_decay` of 0, because it can be set.
    State: `0` bytes a leaf, `4` once, `4` more for each number, and the state of the transform.
    Flops: at most `0` a leaf, and those of the transform.
    Paper: none.
    Departure: `optax.inject_hyperparams` keeps numbers in the dtype of the parameters, so that in
        bfloat16 `b2 = 0.999` becomes 1 and Adam divides by 0. It takes every callable, such as a
        predicate, for a schedule, and makes arrays of whole numbers, unless `static_args` names
        them. It does not reach the numbers of parts. `optax.tree.get` raises a KeyError where two
        injected transforms have a `learning_rate`. A schedule's value in its first state is that
        of the next update, and later that of the last; here it is of the last after any update.
    Limits: numbers are in float32, or in float64 where the parameters or the array given are.
        Ranges are checked for numbers given here, not for those set later. A number of a part that
        is also computed from others is tuned only if it is given here, and then no longer follows
        them. A transform of optax gets float32 numbers, so its bfloat16 state is widened: put
        `gk.chain` around it in `factory`. Parts of optax's factories are not reached, nor are parts
        of a factory that is given a schedule inside of `factory`. `reset_by_period` around `tune`
        resets the numbers too: put it inside.

    >>> tx, p = gk.tune(gk.sgd, learning_rate=0.5, momentum=0.0), jnp.float32(1.0)
    >>> state = gk.set_hyperparameters(tx.init(p), {"learning_rate": 0.25})
    >>> print(tx.update(p, state, p)[0])
    -0.25
    """
    own, parts = _separated(factory, hyperparameters)
    every = {**own, **parts}
    fixed = {k: x for k, x in hyperparameters.items() if k not in every}
    called = {k: x for k, x in every.items() if callable(x)}
    schedules = {k: rate.checked_schedule("tune", k, x) for k, x in called.items()}
    root = None if _numbers(factory) is not None else ""

    def build(values: Values, put: Callable[[str, Any], Any] | None = None) -> Any:
        """The transform that `factory` makes with these numbers."""
        here = {k: x for k, x in values.items() if k in own}
        part = Part(root, put or (lambda path, x: values.get(path, x)), {})
        return calling("tune", within(part, lambda: factory(**fixed, **here)))

    start = {k: f(jnp.zeros([], jnp.int32)) for k, f in schedules.items()}
    made = build({**every, **start})
    check.transform("tune", "what factory returns", made)
    made = optax.with_extra_args_support(made)
    for k in every.keys() - schedules.keys():
        check.number_or_schedule("tune", k, every[k])
    found = _numbers_of_parts(factory, build, {**every, **start}, own)
    kept = {k: x for k, x in {**found, **every}.items() if k not in schedules}

    def init(params: Params) -> TunedState:
        count = jnp.zeros([], jnp.int32)
        hyper = {k: _array(x, params) for k, x in kept.items()}
        now = {k: _array(f(count), params) for k, f in schedules.items()}
        return TunedState(count, hyper, now, build({**hyper, **now}).init(params))

    def update(
        updates: Updates, state: TunedState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, TunedState]:
        now = {
            k: jnp.asarray(f(state.count), state.scheduled[k].dtype)
            for k, f in schedules.items()
        }
        try:
            tx = optax.with_extra_args_support(build({**state.hyperparameters, **now}))
            u, inner = tx.update(updates, state.inner, params, **extra)
        except UNTRACEABLE as wrong:
            wrong.add_note(f"gradkit.tune has traced {', '.join(own)}. {FIX}")
            raise
        count = numbers.increment(state.count)
        return u, TunedState(count, state.hyperparameters, now, inner)

    # of the kind that `factory` makes: what rounds parameters stays known as such
    return made._replace(init=init, update=update)


def _separated(factory: Any, given: Values) -> tuple[dict[str, Any], dict[str, Any]]:
    """The hyperparameters of the factory and of its parts: numbers, and schedules that are given."""
    _check_factory(factory)
    known, is_open = _parameters(factory)
    parts = {k: x for k, x in given.items() if "/" in k}
    if not is_open:
        _check_known([k for k in given if k not in parts], known)
    takes, keywords = _numbers(factory), getattr(factory, "keywords", {})
    defaults = {
        k: p.default
        for k, p in known.items()
        if k not in keywords and not callable(p.default)
    }
    own = {
        k: x
        for k, x in {**defaults, **given}.items()
        if k not in parts and _is_hyperparameter(k, x, known.get(k), takes)
    }
    return own, parts


def _is_hyperparameter(
    name: str, x: Any, argument: inspect.Parameter | None, takes: Any
) -> bool:
    """Whether `x` is tuned: one of ours says what it takes, of others a float is."""
    if takes is not None:
        return name in takes and (callable(x) or _is_number(x))
    default = inspect.Parameter.empty if argument is None else argument.default
    required = default is inspect.Parameter.empty
    if isinstance(default, float) or (required and name == "learning_rate"):
        return callable(x) or _is_number(x)
    return _is_number(x) and jnp.issubdtype(jnp.result_type(x), jnp.floating)


def _is_number(x: Any) -> bool:
    """Whether this is a number, or an array, which is to be one."""
    if isinstance(x, np.ndarray | np.generic | jax.Array):
        return not jnp.issubdtype(x.dtype, jax.dtypes.prng_key) and x.dtype != bool
    return isinstance(x, Real) and not isinstance(x, bool)


def _numbers(factory: Any) -> Any:
    """Names of the arguments of a gradkit factory that are real numbers; None for other factories."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    found = getattr(factory, "numbers", None)
    return found if isinstance(found, frozenset) else None


def _parameters(factory: Any) -> tuple[dict[str, inspect.Parameter], bool]:
    """The arguments that can be given by name, and whether it takes any other name."""
    try:
        every = inspect.signature(factory).parameters
    except ValueError:  # nothing is known of a builtin's arguments
        return {}, True
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    kinds = [p.kind for p in every.values()]
    named = {k: p for k, p in every.items() if p.kind in by_name}
    return named, inspect.Parameter.VAR_KEYWORD in kinds


def _numbers_of_parts(
    factory: Any, build: Callable[..., Any], values: Values, own: Values
) -> dict[str, Any]:
    """The numbers of the factories that `factory` calls, but for those that follow from others.

    They are told by building with numbers that are traced: what follows from one is traced too.
    """
    found: dict[str, Any] = {}
    others: dict[str, None] = {}  # these may be given, but stand for themselves if not

    def trace(names: Values, put: Callable[..., Any]) -> None:
        def traced(one: jax.Array) -> jax.Array:
            here = {k: one if k in names else x for k, x in values.items()}
            build(here, lambda path, x: put(one, path, x))
            return one

        jax.eval_shape(traced, jax.ShapeDtypeStruct((), jnp.result_type(float)))

    def tell(one: jax.Array, path: str, x: Any) -> Any:
        if _is_number(x) and not isinstance(x, Tracer):
            found[path] = x
            return one
        others[path] = None
        return one if path in values else x

    def is_untraceable(name: str) -> bool:
        try:
            trace({name: None}, lambda one, path, x: values.get(path, x))
        except UNTRACEABLE:
            return True
        return False

    try:
        trace(own, tell)
    except UNTRACEABLE as wrong:
        if not (names := [k for k in own if is_untraceable(k)]):
            raise
        what = f"{' and '.join(names)} must be traced, which factory cannot take"
        fixed = ", ".join(f"{k}={values[k]!r}" for k in names)
        remedy = (
            f"Give it as functools.partial(factory, {fixed}), so that it is no state."
        )
        raise error(
            TypeError, "tune", f"{what}, got {values[names[0]]!r}. {remedy}"
        ) from wrong
    parts = [k for k in values if "/" in k]
    _check_known(parts, {**_parameters(factory)[0], **found, **others})
    return found


def _check_known(names: list[str], known: Values) -> None:
    """Every hyperparameter given is one of these."""
    for name in names:
        if name not in known:
            what = "hyperparameters must be of factory or of what it calls"
            text = f"{what}, got {name!r}. {closest(name, known)}"
            raise error(TypeError, "tune", text)


def _check_factory(factory: Any) -> None:
    """Check that this is a callable, and not a transform already."""
    if callable(factory) and not check.is_transform(factory):
        return
    made = check.is_transform(factory)
    got = "a transform" if made else repr(factory)
    remedy = "Pass it as it is, gradkit.adamw, and its arguments to tune by name."
    text = f"factory must be a callable that returns a transform, got {got}. {remedy}"
    raise error(TypeError, "tune", text)


def _array(x: Any, params: Params) -> jax.Array:
    """A number as it is kept: in the dtype that an array has, else that of the parameters."""
    dtypes = [d for d in numbers.dtypes(params) if numbers.is_floating(d)]
    widest = max([jnp.dtype(jnp.float32), *dtypes], key=lambda d: d.itemsize)
    is_array = isinstance(x, jax.Array) and numbers.is_floating(x.dtype)
    return jnp.array(x, x.dtype if is_array else widest)  # a copy: states are donated
