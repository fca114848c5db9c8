"""Hyperparameters that may be numbers or schedules of the updates made so far."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._core import check, numbers
from gradkit._core.call import error
from gradkit._core.types import Rate, Scalar, Schedule


def at(rate: Rate, step: jax.Array) -> Scalar:
    """The value after `step` updates: a schedule is called, a number is itself."""
    return rate(step) if callable(rate) else rate


def is_zero(rate: Rate) -> bool:
    """Whether this is known to be 0 at every update."""
    known = check.number(rate)
    return isinstance(known, float | int) and known == 0


def product(rate: Rate, factor: Rate) -> Rate:
    """`rate * factor`, a schedule where either is one."""
    check.nonnegative("step_by_learning_rate", learning_rate=rate)
    if is_zero(factor):
        return 0.0
    if callable(rate) or callable(factor):
        return lambda step: at(rate, step) * at(factor, step)
    return rate * factor


def lr_scaled_decay(learning_rate: Rate, weight_decay: Scalar) -> Rate:
    """The share that a weight decay in units of the learning rate takes in one update."""
    check.nonnegative("decay_by_weight", weight_decay=weight_decay)
    return product(learning_rate, weight_decay)


def before_bias_correction(eps: Scalar, b2: Scalar) -> Schedule:
    """The `eps` to add to a bias-corrected root that equals `eps` added before bias correction.

    `sqrt(v) + eps`, divided by `sqrt(1 - b2^t)`, is `sqrt(v_bias-corrected) + this`.
    """

    check.nonnegative("scale_by_adam", eps=eps)

    def schedule(step: jax.Array) -> jax.Array:
        t = step.astype(jnp.result_type(float)) + 1
        return eps / jnp.sqrt(numbers.one_minus_power(b2, t, t.dtype))

    return schedule


def bias_correction(decay: Scalar) -> Callable[[ArrayLike], jax.Array]:
    """What bias correction makes of an average that began at zero, as a factor."""

    def schedule(step: ArrayLike) -> jax.Array:
        t = jnp.asarray(step, jnp.result_type(float)) + 1
        return 1 / numbers.one_minus_power(decay, t, t.dtype)

    return schedule


def adam_bias_correction(b1: Scalar, b2: Scalar) -> Callable[[ArrayLike], jax.Array]:
    """What bias correction makes of the plain ratio of Adam's averages, as a factor."""
    mean, square = bias_correction(b1), bias_correction(b2)
    return lambda step: mean(step) / jnp.sqrt(square(step))


def checked_schedule(method: str, name: str, schedule: Callable[..., Any]) -> Schedule:
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
        check.one_number(method, name, value)
        return value

    return read
