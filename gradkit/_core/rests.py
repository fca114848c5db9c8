"""What becomes of a gradient of which a transform has seen a few directions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import linalg
from gradkit._core.types import Scalar

Memory = Any  # what a part remembers


class Seen(NamedTuple):
    """One leaf at one update, upright: `[*batch, rows, cols]`."""

    g: jax.Array  # the gradient
    p: jax.Array  # the basis, [*batch, small, rank]
    r: jax.Array  # the gradient in the basis
    d: jax.Array  # what `inner` made of `r`

    @property
    def side(self) -> int:
        """The axis of `g` that is the small side, and of `r` that is the rank."""
        return small_side(self.g)

    def lift(self, x: jax.Array) -> jax.Array:
        """What `x` is outside the basis: `p x`, or `x p^T`."""
        return x @ self.p.mT if self.side == -1 else self.p @ x


class Rest(NamedTuple):
    """What becomes of a gradient that `inner` has seen in a basis."""

    start: Callable[[tuple[int, ...], Any], Memory]  # batch, dtype
    combine: Callable[[Seen, Memory], tuple[jax.Array, Memory]]


def left_out(scale: Scalar) -> Rest:
    """`scale p d`: what `inner` does not see does not move."""

    def combine(x: Seen, memory: Memory) -> tuple[jax.Array, Memory]:
        return x.lift(scale * x.d), memory

    return Rest(_nothing, combine)


def added() -> Rest:
    """`g + p (d - r)`: what `inner` does not see moves as it is."""

    def combine(x: Seen, memory: Memory) -> tuple[jax.Array, Memory]:
        return x.g + x.lift(x.d - x.r), memory

    return Rest(_nothing, combine)


def recovered(scale: Scalar, growth: Scalar, eps: Scalar) -> Rest:
    """`scale p d + s`, `s` the rest as `inner` scaled each column, growing slowly."""

    def combine(x: Seen, last: jax.Array) -> tuple[jax.Array, jax.Array]:
        gain = _gain(x.d, x.r, x.side, eps)
        s = (x.g - x.lift(scale * x.r)) * gain
        shrink, norm = slow_growth(linalg.norms(s, (-2, -1)), last, growth, eps)
        return x.lift(scale * x.d) + shrink * s, norm

    return Rest(_one_norm, combine)


def rescaled(
    scale: Scalar, growth: Scalar, eps: Scalar, axes: Callable[[Seen], Any]
) -> Rest:
    """The whole gradient as `inner` scaled what it saw along `axes`, growing slowly."""

    def combine(x: Seen, last: jax.Array) -> tuple[jax.Array, jax.Array]:
        gain = _gain(x.d, x.r, axes(x), eps)
        whole = linalg.norms(gain * linalg.norms(x.g, x.side), (-2, -1))
        shrink, norm = slow_growth(whole, last, growth, eps)
        return x.g * (scale * shrink * gain), norm

    return Rest(_one_norm, combine)


def slow_growth(
    norm: jax.Array, last: jax.Array, growth: Scalar, eps: Scalar
) -> tuple[jax.Array, jax.Array]:
    """What keeps a `norm` to at most `growth` times the `last`, as a factor; and that norm.

    From zero it may grow freely.
    """
    most = jnp.where(last > 0, growth * (last + eps), norm)
    kept = jnp.minimum(most, norm).astype(last.dtype)
    return jnp.where(norm > 0, kept / norm, 1), kept


def _gain(d: jax.Array, r: jax.Array, axes: Any, eps: Scalar) -> jax.Array:
    """How many times as long `inner` made what it saw."""
    size = linalg.norms(r, axes) + eps
    return jnp.where(size > 0, linalg.norms(d, axes) / size, 0)


def _nothing(shape: tuple[int, ...], dtype: Any) -> Memory:
    return ()


def _one_norm(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jnp.zeros((*shape, 1, 1), dtype)


def small_side(x: jax.Array) -> int:
    """The axis of the small side of an upright matrix."""
    rows, cols = x.shape[-2:]
    return -1 if rows > cols else -2
