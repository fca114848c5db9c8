"""Schedules made of schedules, and their picture."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, rate
from gradkit._core.types import Rate, Scalar, Schedule


def warmup_cosine(peak: Scalar, steps: int, warmup: int, end: Scalar) -> Schedule:
    """A linear rise in the first `warmup` updates, then half a cosine, at `end` after `steps`."""

    def schedule(step: jax.Array) -> jax.Array:
        c = jnp.asarray(step, jnp.result_type(float))
        w = jnp.clip((c - warmup) / (steps - warmup), 0, 1)
        fall = end + (peak - end) * (1 + jnp.cos(jnp.pi * w)) / 2
        rise = peak * jnp.maximum(c + 1, 0) / max(warmup, 1)
        return jnp.where(c < warmup, rise, fall)

    return schedule


def warmup_linear(peak: Scalar, steps: int, warmup: int) -> Schedule:
    """A linear rise in the first `warmup` updates, then a linear fall to zero at `steps`."""

    def schedule(step: jax.Array) -> jax.Array:
        c = jnp.asarray(step, jnp.result_type(float))
        rise = (c + 1) / max(warmup, 1)
        fall = until(step, steps) / (steps - warmup)
        return peak * jnp.clip(jnp.minimum(rise, fall), 0, 1)

    return schedule


def until(step: Any, end: int) -> jax.Array:
    """`end - step` as a float, exact where float32 counts no longer; a whole step is at least 0."""
    kind, end = jnp.result_type(float), int(end)
    c = step if isinstance(step, jax.Array) else np.asarray(step)
    if not jnp.issubdtype(c.dtype, jnp.integer):
        return end - jnp.asarray(c, kind)
    if isinstance(c, np.ndarray):  # of 64 bits, where arrays of JAX have 32
        return jnp.asarray(end - np.maximum(c.astype(np.int64), 0), kind)
    whole = jnp.maximum(c.astype(jnp.result_type(int)), 0)  # so that nothing wraps
    return (end - whole).astype(kind)


def then(first: Rate, steps: int | jax.Array, second: Rate) -> Schedule:
    """Follow `first` for so many updates, then `second`, which counts from there.

    Args:
        first: a number, or a schedule of the updates made so far, of gradkit or optax.
        steps: updates before `second` takes over; it may be traced.
        second: a number or a schedule. It sees the updates made since it took over.

    >>> rate = gk.then(optax.linear_schedule(0.25, 1.0, 3), 3, optax.cosine_decay_schedule(1.0, 4))
    >>> print([round(float(rate(c)), 2) for c in range(8)])
    [0.25, 0.5, 0.75, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    check.whole("then", "steps", steps)
    check.nonnegative("then", steps=steps)
    check.below("then", "2**31", 2**31, steps=steps)
    parts = _checked("then", first=first, second=second)

    def schedule(step: jax.Array) -> jax.Array:
        c = jnp.asarray(step)
        before, after = parts(jnp.minimum(c, steps), jnp.maximum(c - steps, 0))
        return jnp.where(c < steps, before, after)

    return schedule


def times(first: Rate, second: Rate) -> Schedule:
    """Multiply two schedules, or a schedule and a number, at every count.

    Args:
        first: a number, or a schedule of the updates made so far, of gradkit or optax.
        second: another.

    >>> rate = gk.times(0.5, gk.schedule_by_linear_decay(1.0, steps=4))
    >>> print([float(rate(c)) for c in range(5)])
    [0.5, 0.375, 0.25, 0.125, 0.0]
    """
    parts = _checked("times", first=first, second=second)

    def schedule(step: jax.Array) -> jax.Array:
        c = jnp.asarray(step)
        a, b = parts(c, c)
        return jnp.asarray(a * b)

    return schedule


def plot_schedule(schedule: Rate, steps: int, axes: Any) -> None:
    """Draw a schedule over the updates of a run on matplotlib's `axes`.

    Args:
        schedule: a number, or a schedule of the updates made so far, of gradkit or optax.
        steps: the number of updates of the run.
        axes: such as `plt.gca()`. A second call draws a second line.
    """
    check.count("plot_schedule", steps=steps)
    parts = _checked("plot_schedule", schedule=schedule)
    counts = np.arange(steps)
    (values,) = jax.vmap(parts)(jnp.asarray(counts))
    axes.plot(counts, np.asarray(values))
    axes.set_xlim(0, steps)
    axes.set_ylim(bottom=min(0, float(np.min(values))))
    axes.set(xlabel="updates made so far", ylabel="value for the next update")


def _checked(method: str, **parts: Rate) -> Any:
    """A function of one count for each part, which returns their values then."""
    for name, part in parts.items():
        if callable(part):
            rate.checked_schedule(method, name, part)
        else:
            check.number_or_schedule(method, name, part)
            check.above(method, -float("inf"), **{name: part})  # is no nan
    return lambda *counts: tuple(
        rate.at(part, c) for part, c in zip(parts.values(), counts)
    )
