"""Hyperparameters that may be numbers or schedules of the update count."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradkit._core import check, numbers
from gradkit._core.call import error, refusal
from gradkit._core.types import Rate, Scalar, Schedule


def at(rate: Rate, step: jax.Array) -> Scalar:
    """`rate(step)` of a schedule, or the number `rate`."""
    return rate(step) if callable(rate) else rate


def is_zero(rate: Rate) -> bool:
    """Whether `rate` is a concrete number equal to 0."""
    value = check.number(rate)
    return isinstance(value, float | int) and value == 0


def product(rate: Rate, factor: Rate) -> Rate:
    """`rate * factor`, as a schedule if either is one."""
    check.nonnegative("step_by_learning_rate", learning_rate=rate)
    if is_zero(factor):
        return 0.0
    if callable(rate) or callable(factor):
        return lambda step: at(rate, step) * at(factor, step)
    return rate * factor


def lr_scaled_decay(learning_rate: Rate, weight_decay: Scalar) -> Rate:
    """`learning_rate * weight_decay`, the fraction of a parameter that one update subtracts."""
    check.nonnegative("decay_by_weight", weight_decay=weight_decay)
    return product(learning_rate, weight_decay)


def before_bias_correction(eps: Scalar, b2: Scalar) -> Schedule:
    """A schedule of `eps / sqrt(1 - b2^t)`, for an `eps` added before bias correction.

    `(sqrt(v) + eps) / sqrt(1 - b2^t)` is the bias-corrected root plus this number.
    """
    check.nonnegative("scale_by_adam", eps=eps)

    def schedule(step: jax.Array) -> jax.Array:
        t = step.astype(jnp.result_type(float)) + 1
        return eps / jnp.sqrt(numbers.one_minus_power(b2, t, t.dtype))

    return schedule


def bias_correction(decay: Scalar) -> Callable[[ArrayLike], jax.Array]:
    """A schedule of `1 / (1 - decay^t)`, which bias-corrects an EMA that began at zero."""

    def schedule(step: ArrayLike) -> jax.Array:
        t = jnp.asarray(step, jnp.result_type(float)) + 1
        return 1 / numbers.one_minus_power(decay, t, t.dtype)

    return schedule


def adam_bias_correction(b1: Scalar, b2: Scalar) -> Callable[[ArrayLike], jax.Array]:
    """A schedule of `sqrt(1 - b2^t) / (1 - b1^t)`, which bias-corrects `m / sqrt(v)` of Adam."""
    mean, square = bias_correction(b1), bias_correction(b2)
    return lambda step: mean(step) / jnp.sqrt(square(step))


def checked_schedule(method: str, name: str, schedule: Callable[..., Any]) -> Schedule:
    """`schedule`, the argument `name` of `method`; a call raises unless it returns one number."""
    subject = f"{name}, a schedule,"
    if wrong := refusal(schedule, 0):
        text = f"{subject} must take the updates made so far alone, got: {wrong}."
        raise error(TypeError, method, f"{text} Write lambda count: ..., say.")

    def checked(count: jax.Array) -> Any:
        try:
            value = schedule(count)
        except jax.errors.ConcretizationTypeError as wrong:
            text = f"{subject} must be a function that JAX can trace, got {schedule!r}."
            remedy = "Branch by jnp.where, or join schedules by optax.join_schedules."
            raise error(TypeError, method, f"{text} {remedy}") from wrong
        except Exception as wrong:
            wrong.add_note(f"Raised by the schedule {name} of gradkit.{method}.")
            raise
        check.one_number(method, name, value)
        return value

    return checked
