"""The largest entries of one leaf or of all, found by halving: no sort, and no leaf is moved.

Floats at least 0 are ordered as the integers with the same bits. A threshold is that integer,
set bit by bit from the top, with one count of the entries above it for each bit.
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
    """How many entries are the fraction `density` of each size, at least 1, as a vector."""
    exact = density * jnp.asarray(sizes, jnp.result_type(float))
    return jnp.maximum(jnp.round(exact), 1)


def top(t: Any, k: jax.Array) -> Any:
    """Where the `k[i]` largest entries of leaf `i` are, and all that tie with the last."""
    sizes, structure = _sizes(t), jax.tree.structure(t)
    return structure.unflatten(x >= y for x, y in zip(sizes, _every_kth(sizes, k)))


def threshold(t: Any, density: Scalar) -> jax.Array:
    """The size that the largest entries of the whole tree, a fraction `density`, have at least."""
    sizes, dtype = _sizes(t), tree.zero_per_leaf(t).dtype
    k = count(density, [sum(x.size for x in sizes)])

    def above(trial: jax.Array) -> jax.Array:
        counts = [jnp.sum(x >= trial[0], dtype=jnp.int32) for x in sizes]
        return sum((n.astype(k.dtype) for n in counts), jnp.zeros(1, k.dtype))

    least = jnp.zeros(1, _integers(dtype))
    return _floats(_halve(above, k, varying_as(least, (sizes, k))), dtype)[0]


def largest(t: Any, allowed: Any, k: jax.Array) -> Any:
    """Where the `k[i]` largest entries of leaf `i` are, of those `allowed`; the first of ties."""
    structure = jax.tree.structure(t)
    kinds = jax.tree.leaves(allowed)
    sizes = [jnp.where(a, x + 1, 0) for a, x in zip(kinds, _sizes(t))]
    least = _every_kth(sizes, k)
    above = [x > y for x, y in zip(sizes, least)]
    room = k - _count(above, k)
    tied = [
        jnp.where((x == y) & (x > 0), _from_the_end(x), 0) for x, y in zip(sizes, least)
    ]
    last = jnp.maximum(_every_kth(tied, room), 1)
    return structure.unflatten(a | (x >= y) for a, x, y in zip(above, tied, last))


def _every_kth(xs: Sequence[jax.Array], k: jax.Array) -> jax.Array:
    """The largest integer that at least `k[i]` entries of leaf `i` reach, 0 if none is."""
    dtype = xs[0].dtype if xs else jnp.dtype(jnp.int32)
    least = varying_as(jnp.zeros(k.shape, dtype), (xs, k))
    return _halve(lambda t: _count([x >= y for x, y in zip(xs, t)], k), k, least)


def _halve(
    above: Callable[[jax.Array], jax.Array], k: jax.Array, zero: jax.Array
) -> jax.Array:
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
    """The size of every entry, as an integer of the same order."""
    dtype = tree.zero_per_leaf(t).dtype
    sizes = [jnp.abs(x.astype(dtype)) for x in jax.tree.leaves(t)]
    return [jax.lax.bitcast_convert_type(x, _integers(dtype)) for x in sizes]


def _integers(dtype: Any) -> Any:
    return jnp.dtype(f"int{jnp.finfo(dtype).bits}")


def _floats(x: jax.Array, dtype: Any) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, dtype)


def _from_the_end(x: jax.Array) -> jax.Array:
    """Each entry's number in the order of the leaf, counted from 1 at the end."""
    axes = [jax.lax.broadcasted_iota(x.dtype, x.shape, i) for i in range(x.ndim)]
    strides = itertools.accumulate(reversed((*x.shape[1:], 1)), lambda a, b: a * b)
    places = (n * i for n, i in zip(reversed(list(strides)), axes))
    return math.prod(x.shape) - sum(places, jnp.zeros_like(x))
