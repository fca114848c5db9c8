"""Types, and `transform` and its variants, which pair `init` and `update`."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, cast

import jax
import optax

from gradkit._core import check, numbers
from gradkit._core.call import are_widened

Params = Any  # a pytree of real arrays
Updates = Any  # a pytree like Params: gradients, directions, or updates
Extra = Any  # further keyword arguments of `update`
Scalar = float | jax.Array  # a number, which may be traced
Schedule = Callable[[jax.Array], Any]  # updates made so far -> a number
Rate = Scalar | Schedule
Hyper = Scalar | Any  # the method sees a number; `factory` accepts schedules too
Transform = optax.GradientTransformationExtraArgs
AnyTransform = optax.GradientTransformation  # of optax or gradkit, as wrappers take


class Stepping(optax.GradientTransformationExtraArgs):
    """A transform that has turned the sign: its updates are what parameters move by."""


class Averaging(optax.GradientTransformationExtraArgs):
    """A transform that ends in an average of the parameters, which sees what they move by."""


class Rounding(optax.GradientTransformationExtraArgs):
    """A transform that is last in a chain and rounds parameters to their dtype itself.

    Its update is in at least float32, so that the parameters become exactly the numbers that it
    chose. `chain` does not round it.
    """


KINDS = (optax.GradientTransformationExtraArgs, Stepping, Averaging, Rounding)


def kind_of(tx: AnyTransform) -> int:
    """How far a transform has come on the way from a gradient to parameters, by `KINDS`."""
    return next((i for i, kind in enumerate(KINDS[1:], 1) if isinstance(tx, kind)), 0)


def of_verb(name: str, made: Any) -> Any:
    """What a factory of this name has made, as the kind of transform that its verb says."""
    steps = name.startswith("step_by_") and name != "step_by_weight_floor"
    kind = Averaging if name.startswith("average_params_by_") else Stepping
    marks = steps or kind is Averaging
    is_transform = isinstance(made, optax.GradientTransformation)
    return kind(*made) if marks and is_transform and not kind_of(made) else made


class Reading(Protocol):
    """The part of a result of `gradkit.read_model` that a factory of matrix methods uses."""

    def shown_to(
        self,
        factory: str,
        build: Callable[[Mapping[str, Any]], Any],
        arguments: Mapping[str, Any],
        takes: Collection[str],
    ) -> Transform:
        """The transform `build(arguments)`, applied to the matrices of the model."""
        ...


Model = Reading | None


def transform(
    init: Callable[[Params], Any], update: Callable[..., tuple[Updates, Any]]
) -> Transform:
    """Pair `init` and `update`, and check every leaf that they get.

    Errors name the factory that the user called.
    """

    def checked_init(params: Params) -> Any:
        check.real("transform", params)
        return init(params)

    def checked_update(updates: Updates, state: Any, params: Params = None, **extra):
        check.real("transform", updates)
        if params is not None:
            check.alike("transform", updates, params)
        hidden = numbers.opaque(updates)
        return update(hidden, state, params, **extra)

    return cast(Transform, Transform(checked_init, checked_update))


def rounding(
    method: str, init: Callable[[Params], Any], update: Callable[..., Any]
) -> Transform:
    """`transform` for a `Rounding`, which must see parameters in their own dtype."""

    def rounding_init(params: Params) -> Any:
        requirement = "it must be the last transform of gradkit.chain itself"
        got = "one inside of it, where parameters are in float32"
        remedy = "Take it out of what is around it: leaves of float32 pass as they are."
        check.holds(method, not are_widened(), requirement, got, remedy)
        return init(params)

    def rounding_update(
        updates: Updates, state: Any, params: Params = None, **extra: Extra
    ) -> tuple[Updates, Any]:
        check.given(method, params)
        return update(updates, state, params, **extra)

    return Rounding(*transform(rounding_init, rounding_update))


def wrapper(
    init: Callable[..., Any], update: Callable[..., tuple[Updates, Any]]
) -> Transform:
    """Pair `init` and `update` of a wrapper, without checks: the transforms inside check leaves.

    So weights in int8, `jax.random` keys and `float0` gradients reach transforms that take them.
    """
    return cast(Transform, Transform(init, update))


def abstract_state(tx: AnyTransform, params: Params) -> Any:
    """The shapes of a state; the state itself if `init` cannot be traced."""
    try:
        return jax.eval_shape(lambda p: tx.init(p), params)
    except TypeError:  # a hyperparameter that `inject_hyperparams` has traced
        return tx.init(params)


def stateless(
    update: Callable[..., Updates], check: Callable[[Params], None] | None = None
) -> Transform:
    """A transform without state from `update(updates, params, **extra) -> updates`.

    `check`, if given, is called with the parameters in `init`.
    """

    def init(params: Params) -> optax.EmptyState:
        if check is not None:
            check(params)
        return optax.EmptyState()

    def step(updates: Updates, state: Any, params: Params = None, **extra):
        return update(updates, params, **extra), state

    return transform(init, step)
