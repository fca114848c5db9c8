"""Schedules by which the bases of a projection are renewed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gradkit._core import check
from gradkit._core.factory import part
from gradkit._core.types import Scalar
from gradkit.subspace.parts import Memory, UpdateSchedule


@part
def every_n(every: Scalar = 200) -> UpdateSchedule:
    """Renew all bases where `every` divides the number of updates so far.

    Args:
        every: update interval of the projector.
    """
    check.positive("subspace.every_n", every=every)
    return _by_count(lambda count, leaves: count % every == 0)


@part
def staggered(every: Scalar = 200) -> UpdateSchedule:
    """Renew all bases at the first update, then those of one leaf after another.

    Leaf `i` of `n` is renewed where `every` divides the number of updates so far, less
    `floor(i * every / n)`. After the first, no update renews more than about `n / every` leaves.

    Args:
        every: update interval of the projector of each leaf.
    """
    check.positive("subspace.staggered", every=every)

    def renew(count: jax.Array, leaves: int) -> jax.Array:
        offset = jnp.arange(leaves, dtype=count.dtype) * every // max(leaves, 1)
        return (count == 0) | ((count - offset) % every == 0)

    return _by_count(renew)


@part
def on_energy_drop(overlap: Scalar = 0.9) -> UpdateSchedule:
    r"""Renew a basis after the fraction of the gradient's norm in it has dropped.

    The fraction is $\lVert r \rVert / \lVert g \rVert$, with $r$ the projection of $g$. A basis is
    renewed one update after this fell to `overlap` times what it was when the basis was found.

    Args:
        overlap: at 1 a basis is renewed at every update; at 0, only at the first one, and after
            one whose projection was zero.
    """
    check.interval("subspace.on_energy_drop", "[0, 1]", overlap=overlap)

    def init(leaves: int) -> jax.Array:
        return jnp.stack([jnp.ones(leaves), jnp.zeros(leaves)])

    def renew(memory: jax.Array, count: jax.Array, leaves: int) -> jax.Array:
        first, last = memory
        return last <= overlap * first

    def update(
        memory: jax.Array, renewed: jax.Array, fractions: Callable[[], jax.Array]
    ) -> jax.Array:
        last = fractions().astype(memory.dtype)
        return jnp.stack([jnp.where(renewed, last, memory[0]), last])

    return UpdateSchedule(init, renew, update)


def _by_count(renew: Callable[[jax.Array, int], jax.Array]) -> UpdateSchedule:
    """A schedule without a memory, which renews by the number of updates so far."""

    def keep(memory: Memory, renewed: jax.Array, fractions: object) -> Memory:
        return memory

    return UpdateSchedule(
        init=lambda leaves: (),
        renew=lambda memory, count, leaves: renew(count, leaves),
        update=keep,
    )
