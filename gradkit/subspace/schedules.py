"""When the bases of subspaces are renewed: all at once, in turn, or as they must."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check
from gradkit._core.factory import part
from gradkit._core.types import Scalar
from gradkit.subspace.residuals import Memory


class UpdateSchedule(NamedTuple):
    """When a basis is renewed: one answer for all leaves, or one for each."""

    start: Callable[[int], Memory]  # leaves
    due: Callable[[Memory, jax.Array, int], jax.Array]  # memory, updates so far, leaves
    note: Callable[[Memory, jax.Array, Callable[[], jax.Array]], Memory]  # due, shares


@part
def every_n(every: Scalar = 200) -> UpdateSchedule:
    """All bases where `every` divides the updates so far.

    Args:
        every: updates between two renewals.
    """
    check.positive("subspace.every_n", every=every)
    return _timed(lambda step, leaves: step % every == 0)


@part
def staggered(every: Scalar = 200) -> UpdateSchedule:
    """All bases at the first update, then one leaf's after another's.

    Leaf `i` of `n` where `every` divides the updates so far less `floor(i * every / n)`, so that
    no update renews more than about `n / every` of them.

    Args:
        every: updates between two renewals of a leaf.
    """
    check.positive("subspace.staggered", every=every)

    def due(step: jax.Array, leaves: int) -> jax.Array:
        turn = jnp.arange(leaves, dtype=step.dtype) * every // max(leaves, 1)
        return (step == 0) | ((step - turn) % every == 0)

    return _timed(due)


@part
def on_energy_drop(overlap: Scalar = 0.9) -> UpdateSchedule:
    """Each basis after the share of the gradient's norm in it fell to `overlap` of its first.

    Args:
        overlap: how little of the first share is too little, from 0, never, to 1, always.
    """
    check.portion("subspace.on_energy_drop", overlap=overlap)

    def start(leaves: int) -> jax.Array:
        return jnp.stack([jnp.ones(leaves), jnp.zeros(leaves)])

    def due(memory: jax.Array, step: jax.Array, leaves: int) -> jax.Array:
        first, last = memory
        return last <= overlap * first

    def note(
        memory: jax.Array, due: jax.Array, shares: Callable[[], jax.Array]
    ) -> jax.Array:
        last = shares().astype(memory.dtype)
        return jnp.stack([jnp.where(due, last, memory[0]), last])

    return UpdateSchedule(start, due, note)


def _timed(due: Callable[[jax.Array, int], jax.Array]) -> UpdateSchedule:
    return UpdateSchedule(
        start=lambda leaves: (),
        due=lambda memory, step, leaves: due(step, leaves),
        note=lambda memory, due, shares: memory,
    )
