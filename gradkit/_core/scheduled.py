"""Schedules: functions of the updates made so far that return a hyperparameter."""

import inspect
from collections.abc import Callable
from typing import Any

import jax

from gradkit._core import check
from gradkit._core.called import error
from gradkit._core.types import Schedule


def checked(method: str, name: str, schedule: Callable[..., Any]) -> Schedule:
    """`schedule`, the argument `name` of `method`; it must return one number, traced or not."""
    what = f"{name}, a schedule,"
    try:
        inspect.signature(schedule).bind(0)
    except TypeError as wrong:
        text = f"{what} must take the updates made so far alone, got: {wrong}."
        remedy = "Write lambda count: ..., say."
        raise error(TypeError, method, f"{text} {remedy}") from None
    except ValueError:  # nothing is known of a builtin's arguments
        pass

    def read(count: jax.Array) -> Any:
        try:
            value = schedule(count)
        except jax.errors.ConcretizationTypeError as wrong:
            text = f"{what} must be a function that JAX can trace, got {schedule!r}."
            remedy = "Branch by jnp.where, or join schedules by optax.join_schedules."
            raise error(TypeError, method, f"{text} {remedy}") from wrong
        except Exception as wrong:
            wrong.add_note(f"Raised by the schedule {name} of gradkit.{method}.")
            raise
        check.hyperparameter(method, name, value, False)
        return value

    return read
