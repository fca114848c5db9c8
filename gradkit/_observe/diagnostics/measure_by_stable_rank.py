"""The stable rank of what training has added to the matrices of a model."""

import functools
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import check, numbers
from gradkit._core.call import error
from gradkit._core.matrix import layout
from gradkit._core.matrix.linalg import PRECISE
from gradkit._core.measure import figure, stacked
from gradkit._core.measure.loss import parameters
from gradkit._core.types import Params

NAME = "measure_by_stable_rank"


class StableRank(NamedTuple):
    """Ranks and norms by the path of each matrix leaf; of stacked ones, an axis for the stack."""

    rank: dict[str, jax.Array]  # [*stack], from 1 to the smaller side; 0 of zeros
    largest: dict[str, jax.Array]  # [*stack], the largest rank possible
    frobenius: dict[str, jax.Array]  # [*stack], norms
    spectral: dict[str, jax.Array]  # [*stack], norms

    def plot(self, axes: Any = None) -> Any:
        """`plot_stable_rank` of this result."""
        return plot_stable_rank(self, axes)


def measure_by_stable_rank(
    params: Params, start: Params | None = None, batch_axes: tuple[int, ...] = ()
) -> StableRank:
    r"""Measure the stable rank of every matrix of a model, or of its change since the start.

    $$\mathrm{rank} = \frac{\lVert W - W_0 \rVert_F^2}{\lVert W - W_0 \rVert_2^2}
      = \frac{\sum_i \sigma_i^2}{\max_i \sigma_i^2}$$

    It is at least 1, at most the rank, and moves little when small singular values do. Adapters of a
    rank far below it change a model less than full training did.

    Args:
        params: a tree; leaves of fewer than two axes besides `batch_axes` are left out.
        start: other parameters of the same shapes, subtracted first; None for zeros.
        batch_axes: the axes that number matrices, as `(0,)` of scanned layers. The last of the others is
            the columns, all before it are the rows: a convolution's kernel is one matrix.

    Paper: Sanyal, Torr and Dokania, "Stable Rank Normalization for Improved Generalization in
        Neural Networks and GANs", arXiv:1906.04659.
    Departure: none.
    Limits: factors the Gram matrix of the smaller side, in time of its cube. `W - W_0` is of
        float32 at least, but parameters that were kept in less have lost what is below
        their rounding. Where all entries are zero, ranks and norms are 0; where some are not
        finite, nan.

    >>> before = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    >>> after = {"w": before["w"] + jnp.eye(3, 2), "b": before["b"]}  # rank two, of equal values
    >>> print(gk.measure_by_stable_rank(after, before).rank)
    {'w': Array(2., dtype=float32)}
    """
    if not isinstance(batch_axes, Sequence):
        text = (
            f"batch_axes must be a tuple, got {batch_axes!r}. Pass ({batch_axes!r},)."
        )
        raise error(TypeError, NAME, text)
    parameters(NAME, params)
    if start is not None:
        start = stacked.like(NAME, "start", start, params)
    axes = tuple(batch_axes)
    most = max(jnp.ndim(x) for x in jax.tree.leaves(params))
    outside = [axis for axis in axes if axis not in range(-most, most)]
    want = f"batch_axes must be axes of leaves, which have at most {most}"
    remedy = "Count axes from 0, as (0,) of scanned layers."
    check.holds(NAME, not outside, want, outside, remedy)

    def is_matrix(x: jax.Array) -> bool:
        return x.ndim >= 2 + len(axes) and x.size > 0

    found = {path or "params": x for path, x in check.leaves(params) if is_matrix(x)}
    besides = f" besides batch_axes {axes}" if axes else ""
    want = f"params must have one matrix or more{besides}"
    remedy = "Pass the weights of a model, and the batch_axes of their stacks."
    check.holds(NAME, bool(found), want, f"shapes {_shapes(params)}", remedy)
    check.matrix(NAME, found, axes)
    before = {} if start is None else dict(check.leaves(start))
    kept = {path or "params": x for path, x in before.items() if is_matrix(x)}
    return _ranks(found, kept, axes)


@functools.partial(jax.jit, static_argnames="axes")
def _ranks(
    found: dict[str, jax.Array], before: dict[str, jax.Array], axes: tuple[int, ...]
) -> StableRank:
    parts: dict[str, Any] = {}
    for path, x in found.items():
        change = x.astype(numbers.wide_dtype(x))
        change = change - before[path] if before else change
        parts[path] = _of_matrices(layout.fat(change, axes))
    pick = lambda i: {path: part[i] for path, part in parts.items()}
    return StableRank(pick(0), pick(1), pick(2), pick(3))


def _shapes(params: Params) -> list[Any]:
    return [jnp.shape(x) for x in jax.tree.leaves(params)]


def _of_matrices(x: layout.Matrices) -> tuple[jax.Array, ...]:
    """The stable ranks, the largest possible, Frobenius and spectral norms of `[*batch, m, n]`."""
    size = jnp.max(jnp.abs(x), (-2, -1), keepdims=True)
    some = size > 0
    x = x / jnp.where(some, size, 1)
    gram = jnp.matmul(x, x.mT, precision=PRECISE)
    largest = jnp.max(jnp.linalg.eigvalsh(gram), -1)
    total = jnp.sum(jnp.square(x), (-2, -1))
    rank = total / jnp.where(largest > 0, largest, 1)
    most = jnp.full_like(rank, x.shape[-2])
    size, some = size[..., 0, 0], some[..., 0, 0]
    rank = jnp.where(some, jnp.clip(rank, 1, most), total)  # 0, or nan
    return rank, most, size * jnp.sqrt(total), size * jnp.sqrt(jnp.abs(largest))


def plot_stable_rank(result: StableRank, axes: Any = None) -> Any:
    """Draw the stable rank of every matrix as a bar, with the largest possible as a line.

    Args:
        result: of `measure_by_stable_rank`, with numbers that are known.
        axes: of matplotlib; those of a new figure if None.

    Returns:
        The axes.
    """
    axes = figure.axes_or_new("plot_stable_rank", axes)
    rows = [
        (path if ranks.ndim == 0 else f"{path} {list(at)}", float(rank), most)
        for path, ranks in result.rank.items()
        for (at, rank), most in zip(
            np.ndenumerate(np.asarray(ranks)), np.ravel(result.largest[path])
        )
    ]
    names, ranks, most = zip(*sorted(rows, key=lambda row: _numbered(row[0])))
    places = np.arange(len(rows))
    axes.barh(places, ranks, color="C0", label="stable rank")
    axes.plot(most, places, "|", color="0.4", markersize=14, label="smaller side")
    for place in places[np.isnan(ranks)]:
        axes.text(0.82, place, "not finite", va="center", color="0.3")
    axes.set_yticks(places, names, fontsize=min(10, 250 / len(names)))
    axes.set_ylim(len(names) - 0.5, -0.5)
    figure.log_axis(axes, 0.8, max(2.5, 1.4 * max(most)))
    axes.set_xlabel("rank")
    figure.legend_above(axes)
    return axes


def _numbered(name: str) -> list[Any]:
    """A key to sort by, of which layer 2 is before layer 10."""
    return [int(x) if x.isdecimal() else x for x in re.split("([0-9]+)", name)]
