"""Dtypes and non-finite numbers: the library's one policy.

`read` casts a gradient to at least float32, and `like` casts the update back to its dtype. All
computation and state in between is in at least float32. `read` also replaces non-finite entries by
zero, so one bad gradient does not spoil the state. Steps come after directions, and use `wide`,
which replaces nothing.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

Tree = Any  # a pytree of arrays


def opaque(t: Tree) -> Tree:
    """Return `t`, hidden from XLA's constant folding.

    XLA reorders products of constants, such as the zero gradient of an unused parameter, and an
    order may overflow: `(a * 0)^2` became `a^2 * 0^2`, infinity times 0. A barrier costs nothing
    on a CPU, but keeps an accelerator from fusing across it. There `t` becomes `max(t, -inf)`,
    and only the constant `-inf` is behind the barrier.
    """
    if not is_compiled():
        return t
    hide = jax.lax.optimization_barrier

    @functools.cache
    def least(dtype: Any) -> jax.Array:
        return hide(np.fmin(np.array(-np.inf, dtype), jnp.finfo(dtype).min))

    leaves, structure = jax.tree.flatten(t)
    real = [i for i, dtype in enumerate(dtypes(leaves)) if is_floating(dtype)]
    if jax.default_backend() == "cpu":
        hidden = hide([leaves[i] for i in real])
    else:
        hidden = [jnp.maximum(leaves[i], least(leaves[i].dtype)) for i in real]
    for i, x in zip(real, hidden):
        leaves[i] = x
    return structure.unflatten(leaves)


def is_compiled() -> bool:
    """Whether the caller is traced to be compiled, not run eagerly."""
    return isinstance(jax.lax.optimization_barrier(np.array(False)), Tracer)


@functools.cache
def is_floating(dtype: Any) -> bool:
    """Whether this is a dtype of real floating numbers."""
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating)


@functools.cache
def is_narrow(dtype: Any) -> bool:
    """Whether this is a real floating dtype of fewer than 32 bits."""
    return is_floating(dtype) and jnp.finfo(dtype).bits < 32


def dtypes(t: Tree) -> list[Any]:
    """The dtype of each leaf; None if the leaf is not an array."""
    return [getattr(x, "dtype", None) for x in jax.tree.leaves(t)]


def is_real(x: Any) -> bool:
    """Whether the leaf `x` is an array of real floating numbers."""
    return is_floating(getattr(x, "dtype", None))


def is_array(x: Any) -> bool:
    """Whether the leaf `x` is an array or a `ShapeDtypeStruct`."""
    return hasattr(x, "shape") and hasattr(x, "dtype")


def is_in_host_memory(x: Any) -> bool:
    """Whether an array, by its type, is in the memory of the host of its device."""
    is_array = isinstance(x, jax.Array)
    return is_array and jax.typeof(x).memory_space == jax.memory.Space.Host


def on_device(x: Any) -> Any:
    """`x` on its device, not in host memory; what is no array stays as it is."""
    is_array = isinstance(x, jax.Array)
    return jax.device_put(x, jax.memory.Space.Device) if is_array else x


def is_trained(x: Any) -> bool:
    """Whether the leaf `x` is an array of real or complex numbers."""
    return is_array(x) and jnp.issubdtype(x.dtype, jnp.inexact)


def wide_dtype(x: Any) -> Any:
    """The dtype of computation and state for `x`: its own, at least float32."""
    return jnp.dtype(jnp.float32) if is_narrow(x.dtype) else x.dtype


def without_nan(x: jax.Array) -> jax.Array:
    """`x`, with zeros for non-finite entries."""
    return jax.lax.select(jax.lax.is_finite(x), x, jnp.zeros_like(x))


def recomputed(x: jax.Array) -> jax.Array:
    """`x`, computed again by each kernel that reads it, not written to memory and read back.

    `reduce_precision` to the same precision changes no value, and XLA repeats such an operation,
    with what it is of, in each kernel.
    """
    limits = jnp.finfo(x.dtype)
    return jax.lax.reduce_precision(x, limits.nexp, limits.nmant)


def finite(x: jax.Array) -> jax.Array:
    """`without_nan`, `recomputed`."""
    return recomputed(without_nan(x))


def read(updates: Tree) -> Tree:
    """`updates` in at least float32, with zeros for non-finite entries."""
    return jax.tree.map(lambda g: finite(g.astype(wide_dtype(g))), updates)


def squarable(x: jax.Array, terms: int = 1) -> jax.Array:
    """`x`, clipped so that a sum of `terms` squares is finite, also after bias correction."""
    largest = np.sqrt(jnp.finfo(x.dtype).max / (4 * max(terms, 1)))
    return jax.lax.clamp(-largest, x, largest)


def summable(x: jax.Array, terms: int) -> jax.Array:
    """`x`, clipped so that a sum of `terms` entries, times numbers of at most 1, is finite."""
    largest = np.float64(jnp.finfo(x.dtype).max) / (4 * max(terms, 1))
    return jax.lax.clamp(x.dtype.type(-largest), x, x.dtype.type(largest))


def read_squarable(updates: Tree) -> Tree:
    """`updates` in at least float32, finite, each entry `squarable`: for elementwise moments."""
    return jax.tree.map(
        lambda g: squarable(without_nan(g.astype(wide_dtype(g)))), updates
    )


def read_square_summable(updates: Tree) -> Tree:
    """`read(updates)`, clipped so that each leaf has a finite sum of squares: for Gram matrices."""
    return jax.tree.map(lambda g: squarable(g, g.size), read(updates))


def wide(t: Tree) -> Tree:
    """`t` in at least float32. Non-finite entries stay, and a `ShapeDtypeStruct` stays one.

    Leaves that are not real floating arrays, such as weights in int8, stay as they are.
    """
    if not any(map(is_narrow, dtypes(t))):
        return t

    def leaf(x: Any) -> Any:
        if not is_real(x):
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(x.shape, wide_dtype(x))
        return x.astype(wide_dtype(x))

    return jax.tree.map(leaf, t)


def increment(count: jax.Array) -> jax.Array:
    """`count + 1`, saturating at the largest number of its dtype."""
    return jnp.asarray(optax.safe_increment(count))


def like(x: Tree, y: Tree) -> Tree:
    """Leaves of `x` cast to the dtypes of `y`, where both are real floating arrays."""
    if dtypes(x) == dtypes(y):
        return x

    def leaf(xi: Any, yi: Any) -> Any:
        return xi.astype(yi.dtype) if is_real(xi) and is_real(yi) else xi

    return jax.tree.map(leaf, x, y)


def one_minus_power(decay: Any, step: jax.Array, dtype: Any) -> jax.Array:
    """`1 - decay^step` without cancellation when `decay` is close to 1."""
    if isinstance(decay, float | int):
        log = math.log(decay) if decay > 0 else -math.inf
    else:
        log = jnp.log(decay)
    return -jnp.expm1(step.astype(dtype) * log)


def divisible(x: jax.Array) -> jax.Array:
    """`x`, clipped to `[tiny, 1 / tiny]`, where reciprocals neither overflow nor underflow."""
    tiny = jnp.finfo(x.dtype).tiny
    return jnp.clip(x, tiny, 1 / tiny)


def inverse(norm: jax.Array) -> jax.Array:
    """`1 / norm`, or 1 for a norm of zero; differentiable at zero too."""
    return 1 / jnp.where(norm > 0, divisible(norm), 1)
