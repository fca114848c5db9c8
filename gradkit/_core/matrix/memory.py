"""Memory layouts and indices hidden from XLA by barriers."""

import itertools
from collections.abc import Sequence

import jax

from gradkit._core import tree


def contiguous(x: jax.Array) -> jax.Array:
    """`x`, laid out in the order of its axes, as a CPU is slow to multiply a transposed view."""
    return jax.lax.optimization_barrier(x)


def row_major(x: jax.Array) -> jax.Array:
    """`x` in row-major order; LAPACK returns column-major matrices.

    XLA would otherwise give the state LAPACK's layout, and copy the state at every update.
    """
    return jax.lax.optimization_barrier(x.reshape(-1)).reshape(x.shape)


def parts(
    stacks: Sequence[jax.Array], lengths: Sequence[Sequence[int]]
) -> list[list[jax.Array]]:
    """Split each stack into parts of these lengths, at indices that XLA does not know.

    With constant indices XLA compiles one kernel for each slice, which takes ten times as long.
    """
    starts = [[0, *itertools.accumulate(ns[:-1])] for ns in lengths]
    places = sorted({start for group in starts for start in group})
    at = dict(zip(places, tree.unknown(places)))

    def part(stack: jax.Array, start: int, length: int) -> jax.Array:
        return jax.lax.dynamic_slice_in_dim(
            stack, at[start], length, allow_negative_indices=False
        )

    return [
        [part(stack, start, n) for start, n in zip(group, ns)]
        for stack, group, ns in zip(stacks, starts, lengths)
    ]
