"""The largest entries of a leaf or a tree by bisection on bits, without a sort or a concatenation.

Floats of at least 0 are ordered as the integers with the same bits. The threshold is such an
integer, set bit by bit from the top. Each bit takes one count of the entries at or above it.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import tree
from gradkit._core.condition import varying_as
from gradkit._core.types import Scalar


def count(density: Scalar, sizes: Sequence[int]) -> jax.Array:
    """`round(density * size)` for each size, at least 1, as a float vector `[leaves]`."""
    exact = density * jnp.asarray(sizes, jnp.result_type(float))
    return jnp.maximum(jnp.round(exact), 1)


def top(t: Any, k: jax.Array) -> Any:
    """For each leaf `i` a mask of the `k[i]` largest absolute values, with all ties of the last."""
    sizes, structure = _sizes(t), jax.tree.structure(t)
    return structure.unflatten(x >= y for x, y in zip(sizes, _every_kth(sizes, k)))


def threshold(t: Any, density: Scalar) -> jax.Array:
    """The smallest of the fraction `density` of largest absolute values in the tree `t`."""
    sizes, dtype = _sizes(t), tree.zero_per_leaf(t).dtype
    k = count(density, [sum(x.size for x in sizes)])

    def above(trial: jax.Array) -> jax.Array:
        counts = [jnp.sum(x >= trial[0], dtype=jnp.int32) for x in sizes]
        return sum((n.astype(k.dtype) for n in counts), jnp.zeros(1, k.dtype))

    least = jnp.zeros(1, _integers(dtype))
    return _floats(_bisect(above, k, varying_as(least, (sizes, k))), dtype)[0]


def largest(t: Any, allowed: Any, k: jax.Array) -> Any:
    """For each leaf `i` a mask of the `k[i]` largest `allowed` absolute values; first ties win."""
    structure = jax.tree.structure(t)
    masks = jax.tree.leaves(allowed)
    sizes = [jnp.where(a, x + 1, 0) for a, x in zip(masks, _sizes(t))]
    least = _every_kth(sizes, k)
    above = [x > y for x, y in zip(sizes, least)]
    room = k - _count(above, k)
    tied = [
        jnp.where((x == y) & (x > 0), _places_from_end(x), 0)
        for x, y in zip(sizes, least)
    ]
    last = jnp.maximum(_every_kth(tied, room), 1)
    return structure.unflatten(a | (x >= y) for a, x, y in zip(above, tied, last))


def _every_kth(xs: Sequence[jax.Array], k: jax.Array) -> jax.Array:
    """The `k[i]`-th largest integer of each leaf `i`, 0 if it has fewer entries."""
    dtype = xs[0].dtype if xs else jnp.dtype(jnp.int32)
    least = varying_as(jnp.zeros(k.shape, dtype), (xs, k))
    return _bisect(lambda t: _count([x >= y for x, y in zip(xs, t)], k), k, least)


def _bisect(
    above: Callable[[jax.Array], jax.Array], k: jax.Array, zero: jax.Array
) -> jax.Array:
    """The largest integers `y` with `above(y) >= k`; `above` counts entries of at least `y`."""
    dtype = zero.dtype
    bits = jnp.iinfo(dtype).bits - 1
    one = jnp.ones([], dtype)

    def step(i: jax.Array, least: jax.Array) -> jax.Array:
        trial = least | jnp.left_shift(one, (bits - 1 - i).astype(dtype))
        return jnp.where(above(trial) >= k, trial, least)

    def set_bits(i: Any, least: jax.Array) -> jax.Array:
        return step(jnp.asarray(i, jnp.int32), least)

    return jax.lax.fori_loop(0, bits, set_bits, zero)


def _count(masks: Sequence[jax.Array], k: jax.Array) -> jax.Array:
    counts = [jnp.sum(m, dtype=jnp.int32).astype(k.dtype) for m in masks]
    return jnp.stack(counts) if counts else jnp.zeros_like(k)


def _sizes(t: Any) -> list[jax.Array]:
    """The bits of every entry's absolute value, as integers of the same order."""
    dtype = tree.zero_per_leaf(t).dtype
    sizes = [jnp.abs(x.astype(dtype)) for x in jax.tree.leaves(t)]
    return [jax.lax.bitcast_convert_type(x, _integers(dtype)) for x in sizes]


def _integers(dtype: Any) -> Any:
    return jnp.dtype(f"int{jnp.finfo(dtype).bits}")


def _floats(x: jax.Array, dtype: Any) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, dtype)


def _places_from_end(x: jax.Array) -> jax.Array:
    """Row-major positions of the entries, counted from 1 at the end."""
    axes = [jax.lax.broadcasted_iota(x.dtype, x.shape, i) for i in range(x.ndim)]
    strides = itertools.accumulate(reversed((*x.shape[1:], 1)), lambda a, b: a * b)
    places = (n * i for n, i in zip(reversed(list(strides)), axes))
    return math.prod(x.shape) - sum(places, jnp.zeros_like(x))
