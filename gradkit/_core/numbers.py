"""Arithmetic on whole trees, and the library's one policy for numbers.

`read` on the way in, `like` on the way out. In between, everything is computed in at least
float32; state is kept in at least float32; an update leaves in its gradient's dtype.
A non-finite entry of a gradient counts as zero, so that one bad step poisons no state. Steps,
which come after directions, take what they are given (`wide`).
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
    """`t`, of whose values XLA knows nothing when it compiles.

    It reorders products of what it knows, such as the gradient of a parameter that the loss does
    not use, and one of the orders may overflow: `(a * 0)^2` became `a^2 * 0^2`, infinity times 0.
    A barrier costs nothing on a CPU, but keeps an accelerator from doing what is before it and
    after it in one kernel. There the larger of a number and minus infinity stands for the number,
    which XLA cannot know either, if this infinity is behind the barrier.
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
    """Whether what is called here is traced to be compiled, and not done at once."""
    return isinstance(jax.lax.optimization_barrier(np.array(False)), Tracer)


@functools.cache
def is_floating(dtype: Any) -> bool:
    """Whether this is a dtype of real floating numbers."""
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating)


@functools.cache
def is_narrow(dtype: Any) -> bool:
    """Whether this is a dtype of real floating numbers of less than float32."""
    return is_floating(dtype) and jnp.finfo(dtype).bits < 32


def dtypes(t: Tree) -> list[Any]:
    """The dtype of each leaf; None of what is no array."""
    return [getattr(x, "dtype", None) for x in jax.tree.leaves(t)]


def is_real(x: Any) -> bool:
    """Whether the leaf `x` is an array of real floating numbers."""
    return is_floating(getattr(x, "dtype", None))


def is_array(x: Any) -> bool:
    """Whether the leaf `x` is an array, or the shape of one."""
    return hasattr(x, "shape") and hasattr(x, "dtype")


def is_trained(x: Any) -> bool:
    """Whether the leaf `x` is an array of real or complex numbers."""
    return is_array(x) and jnp.issubdtype(x.dtype, jnp.inexact)


def wide_dtype(x: Any) -> Any:
    """The dtype `x` is computed and kept in: at least float32."""
    return jnp.dtype(jnp.float32) if is_narrow(x.dtype) else x.dtype


def without_nan(x: jax.Array) -> jax.Array:
    """`x`, with every non-finite entry counted as zero."""
    return jax.lax.select(jax.lax.is_finite(x), x, jnp.zeros_like(x))


def finite(x: jax.Array) -> jax.Array:
    """`without_nan`, such that XLA computes it again for each reader.

    The last line rounds nothing: what depends on one array alone XLA computes again, instead of
    writing it to memory and reading it back.
    """
    limits = jnp.finfo(x.dtype)
    return jax.lax.reduce_precision(without_nan(x), limits.nexp, limits.nmant)


def read(updates: Tree) -> Tree:
    """`updates` in at least float32, with every non-finite entry counted as zero."""
    return jax.tree.map(lambda g: finite(g.astype(wide_dtype(g))), updates)


def squarable(x: jax.Array, terms: int = 1) -> jax.Array:
    """`x`, every entry limited so that the sum of so many squares is finite, bias-corrected too."""
    largest = np.sqrt(jnp.finfo(x.dtype).max / (4 * max(terms, 1)))
    return jax.lax.clamp(-largest, x, largest)


def read_squarable(updates: Tree) -> Tree:
    """`read`, every entry `squarable`: for second moments by entry."""
    return jax.tree.map(
        lambda g: squarable(without_nan(g.astype(wide_dtype(g)))), updates
    )


def read_square_summable(updates: Tree) -> Tree:
    """`read`, every leaf with a finite sum of squares: for Gram matrices."""
    return jax.tree.map(lambda g: squarable(g, g.size), read(updates))


def wide(t: Tree) -> Tree:
    """`t` in at least float32, every entry as it is; shapes without values stay such.

    So do leaves that are no real numbers, such as weights in int8.
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
    """`count + 1`, which stays at the largest number of its dtype once it is there."""
    return jnp.asarray(optax.safe_increment(count))


def like(x: Tree, y: Tree) -> Tree:
    """`x` in `y`'s dtypes, where both are real numbers."""
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
    """`x`, kept to numbers whose reciprocals neither overflow nor are flushed to zero."""
    tiny = jnp.finfo(x.dtype).tiny
    return jnp.clip(x, tiny, 1 / tiny)


def inverse(norm: jax.Array) -> jax.Array:
    """`1 / norm`; 1 of a norm of zero, so that what has it stays zero, with a derivative."""
    return 1 / jnp.where(norm > 0, divisible(norm), 1)
