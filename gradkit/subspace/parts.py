"""The parts of a projection, and the records that they receive."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import optax

from gradkit._core import check
from gradkit._core.call import refusal

Memory = Any  # the state of a part, a tree of arrays


class BasisState(NamedTuple):
    """The state of the basis of one leaf."""

    data: jax.Array  # from which `Basis.vectors` makes the basis, [*batch, ..., rank]
    found: Any  # whether each matrix has its basis yet, bool [*batch, 1, 1]; `()` if not lazy


class Basis(NamedTuple):
    """A way to find a basis `p`, `[*batch, projected, rank]`, of `g`, `[*batch, projected, other]`.

    - `init(shape, dtype, key)` gives the data of the first `p`, of this shape;
    - `renew(states, gs, key)` gives the data of new bases of all leaves; every `g` is finite;
    - `vectors(data, projected, dtype)` gives `p`.

    A lazy basis is kept while `g` is zero, and a matrix gets its first one from its first nonzero
    `g`. The data of a lazy basis are `p` itself.
    """

    init: Callable[[tuple[int, ...], Any, Any], jax.Array]
    renew: Callable[[Sequence[BasisState], Sequence[jax.Array], Any], list[jax.Array]]
    vectors: Callable[[jax.Array, int, Any], jax.Array]
    draws: bool = True  # whether it needs a key
    lazy: bool = False


class UpdateSchedule(NamedTuple):
    """A rule for when bases are renewed.

    - `init(leaves)` gives the first memory, for this number of leaves;
    - `renew(memory, count, leaves)` says whether to renew, after `count` updates: one answer for
      all leaves, or one for each;
    - `update(memory, renewed, fractions)` gives the next memory, where `fractions()`
      computes, for each leaf, the norm of the projection over that of the gradient.
    """

    init: Callable[[int], Memory]
    renew: Callable[[Memory, jax.Array, int], jax.Array]
    update: Callable[[Memory, jax.Array, Callable[[], jax.Array]], Memory]


class Projected(NamedTuple):
    """One leaf at one update, as matrices `[*batch, rows, cols]`."""

    g: jax.Array  # the gradient that was projected, with zeros for non-finite entries
    p: jax.Array  # the basis, [*batch, rows or cols, rank]
    r: jax.Array  # the gradient in the basis
    d: jax.Array  # what `inner` made of `r`
    axis: int  # the axis of `g` that is projected, and of `r` that is the rank
    raw: jax.Array  # `g` before these zeros

    def project_back(self, x: jax.Array) -> jax.Array:
        """`x`, shaped like `r`, mapped back to the shape of `g`: `p x`, or `x p^T`."""
        return x @ self.p.mT if self.axis == -1 else self.p @ x


def no_memory(shape: tuple[int, ...], dtype: Any) -> Memory:
    """The memory of a residual that has none."""
    return ()


class Residual(NamedTuple):
    """A rule that makes the direction of a leaf from its gradient and what `inner` returns.

    - `init(shape, dtype)` gives the first memory of a leaf, `[*batch, rows, cols]`;
    - `combine(projected, memory)` gives the direction, and the next memory;
    - `add_feedback(g, memory)` gives the gradient that is projected.
    """

    init: Callable[[tuple[int, ...], Any], Memory]
    combine: Callable[[Projected, Memory], tuple[jax.Array, Memory]]
    add_feedback: Callable[[jax.Array, Memory], jax.Array] = lambda g, memory: g


class BasisChange(NamedTuple):
    """The change of the basis of one leaf."""

    r: jax.Array  # the new projection, [*batch, rank, cols] or [*batch, rows, rank]
    c: jax.Array  # `new^T old`, [*batch, rank, rank]; the identity if it is not renewed
    axis: int  # the axis of `r` that is the rank

    def rotate(self, x: jax.Array, c: jax.Array) -> jax.Array:
        """`x`, shaped like `r`, times `c` along the rank."""
        return c @ x if self.axis == -2 else x @ c.mT


# (state of `inner`, tree of `BasisChange` like the parameters, updates so far) -> state of `inner`
Realign = Callable[[optax.OptState, Any, jax.Array], optax.OptState]


def check_parts(
    method: str, basis: Any, schedule: Any, residual: Any, realign: Any
) -> None:
    """Raise an error unless each part is of its class, and not the function that makes it."""

    def check_part(argument: str, kind: str, part: Any, fits: bool) -> None:
        name = getattr(part, "__name__", repr(part))
        remedy = (
            f"Call it: {name}()." if callable(part) else "Take one of gradkit.subspace."
        )
        check.holds(method, fits, f"{argument} must be a subspace.{kind}", name, remedy)

    check_part("basis", "Basis", basis, isinstance(basis, Basis))
    check_part(
        "schedule", "UpdateSchedule", schedule, isinstance(schedule, UpdateSchedule)
    )
    check_part("residual", "Residual", residual, isinstance(residual, Residual))
    check_part("realign", "Realign", realign, realign is None or _takes_three(realign))


def is_change(x: Any) -> bool:
    """Whether `x` is a `BasisChange`, a leaf of a tree of them."""
    return isinstance(x, BasisChange)


def _takes_three(realign: Any) -> bool:
    """Whether `realign` can be called with a state, basis changes, and the updates so far."""
    return refusal(realign, None, None, None) is None
