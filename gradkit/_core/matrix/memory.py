"""How arrays lie in memory, and what XLA may know of it: why matrix code has barriers."""

import itertools
from collections.abc import Sequence

import jax

from gradkit._core import tree


def contiguous(x: jax.Array) -> jax.Array:
    """`x`, laid out in memory in the order of its axes: a CPU is slow to multiply a transpose."""
    return jax.lax.optimization_barrier(x)


def row_major(x: jax.Array) -> jax.Array:
    """`x`, row by row in memory, where LAPACK has it column by column.

    XLA would give LAPACK's order to what the state keeps, and copy it at every update.
    """
    return jax.lax.optimization_barrier(x.reshape(-1)).reshape(x.shape)


def parts(
    stacks: Sequence[jax.Array], lengths: Sequence[Sequence[int]]
) -> list[list[jax.Array]]:
    """Each stack's parts of these lengths, sliced at places that XLA does not know.

    For each place that it knows it compiles a kernel, which takes ten times as long.
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
