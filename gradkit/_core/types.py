"""The shapes that flow, and the one way a pair of pure functions becomes a transform."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol, cast

import jax
import optax

from gradkit._core import check, numbers
from gradkit._core.call import are_widened

Params = Any  # a pytree of real arrays
Updates = Any  # a pytree like Params: gradients, directions, or updates
Extra = Any  # keyword arguments of `update` that a method does not know
Scalar = float | jax.Array  # a number, which may be traced
Schedule = Callable[[jax.Array], Any]  # updates made so far -> a number
Rate = Scalar | Schedule
Hyper = Scalar | Any  # a number to the method; its `factory` takes schedules too
Transform = optax.GradientTransformationExtraArgs
AnyTransform = optax.GradientTransformation  # what a wrapper takes: optax's or ours


class Rounding(optax.GradientTransformationExtraArgs):
    """A transform that stands last, and rounds parameters to their dtype by itself.

    Its update is wider than they are, and lands on what it chose: nobody is to round it.
    """


class Reading(Protocol):
    """What `gradkit.read_model` read of a model, as a factory of matrices takes it."""

    def shown_to(
        self,
        factory: str,
        build: Callable[[Mapping[str, Any]], Any],
        arguments: Mapping[str, Any],
        takes: Collection[str],
    ) -> Transform:
        """What `build` makes of the arguments that `factory` takes, shown the model's matrices."""
        ...


Model = Reading | None


def transform(
    init: Callable[[Params], Any], update: Callable[..., tuple[Updates, Any]]
) -> Transform:
    """Pair `init` and `update`, and check every leaf either of them is given.

    Errors go by the factory that the user called.
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
    """`transform`, for one that rounds parameters, and so must see the dtype they are kept in."""

    def kept_init(params: Params) -> Any:
        what = "it must be the last transform of gradkit.chain itself"
        got = "one inside of it, where parameters are in float32"
        remedy = "Take it out of what is around it: leaves of float32 pass as they are."
        check.holds(method, not are_widened(), what, got, remedy)
        return init(params)

    def kept_update(
        updates: Updates, state: Any, params: Params = None, **extra: Extra
    ) -> tuple[Updates, Any]:
        check.given(method, params)
        return update(updates, state, params, **extra)

    return Rounding(*transform(kept_init, kept_update))


def wrapper(
    init: Callable[..., Any], update: Callable[..., tuple[Updates, Any]]
) -> Transform:
    """Pair `init` and `update`, which pass leaves on: each transform inside checks its own.

    So that weights in int8, keys of `jax.random`, and the `float0` that their gradients are can
    be given to a transform that takes them.
    """
    return cast(Transform, Transform(init, update))


def stateless(
    update: Callable[..., Updates], check: Callable[[Params], None] | None = None
) -> Transform:
    """A transform without memory from `update(updates, params, **extra) -> updates`.

    What `init` is given is checked, if there is something to `check`.
    """

    def init(params: Params) -> optax.EmptyState:
        if check is not None:
            check(params)
        return optax.EmptyState()

    def step(updates: Updates, state: Any, params: Params = None, **extra):
        return update(updates, params, **extra), state

    return transform(init, step)
