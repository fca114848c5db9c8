"""Leaves as matrices, with one axis to be projected onto a basis."""

from typing import Literal, NamedTuple

import jax

from gradkit._core import check, numbers
from gradkit._core.matrix import memory

Shape = tuple[int, ...]
Side = Literal["small", "large"]  # which side of a matrix is projected


class View(NamedTuple):
    """The gradient of one leaf at one update, as matrices."""

    g: jax.Array  # [*batch, rows, cols]
    axis: int  # the projected one: -2, the rows, or -1, the columns

    def finite(self) -> "View":
        """The same, with zeros for non-finite entries, and sums of others in range."""
        return View(numbers.summable(numbers.finite(self.g), self.g.size), self.axis)

    def transposed(self) -> jax.Array:
        """`g` as `[*batch, projected, other]`."""
        return self.g.mT if self.axis == -1 else self.g

    def project(self, p: jax.Array) -> jax.Array:
        """`p^T g`, or `g p` if the columns are projected."""
        return self.g @ p if self.axis == -1 else memory.contiguous(p.mT) @ self.g


class Shapes(NamedTuple):
    """The shapes of the basis of a leaf, and of its projection."""

    basis: Shape
    projection: Shape


def shapes(matrix: Shape, rank: int, side: Side) -> Shapes:
    """The shapes for a leaf `[*batch, rows, cols]`."""
    *batch, rows, cols = matrix
    rank = min(rank, rows, cols)
    if projected_axis(matrix, side) == -1:
        return Shapes((*batch, cols, rank), (*batch, rows, rank))
    return Shapes((*batch, rows, rank), (*batch, rank, cols))


def projected_axis(matrix: Shape, side: Side) -> int:
    """The axis that is projected; for a square matrix, the rows."""
    *_, rows, cols = matrix
    return -2 if rows == cols or (rows < cols) == (side == "small") else -1


def check_side(method: str, side: Side) -> None:
    """Raise an error unless `side` is one of the two."""
    check.holds(
        method,
        side in ("small", "large"),
        "side must be 'small' or 'large'",
        repr(side),
        "Choose which side of each matrix is projected.",
    )
