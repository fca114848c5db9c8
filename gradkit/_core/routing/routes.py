"""A table of routes: which transform each leaf goes to, and why."""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import numpy as np

from gradkit._core import check
from gradkit._core.paths import leaf_paths
from gradkit._core.types import AnyTransform, Params

_reported: ContextVar[list["Row"] | None] = ContextVar("reported", default=None)

_unused: ContextVar[list[str] | None] = ContextVar("unused", default=None)


class Row(NamedTuple):
    """Route of one leaf."""

    path: str  # names joined by `/`, as rules take them
    shape: tuple[int, ...]
    matrix: tuple[int, ...] | None  # rows and columns, if it is seen as a matrix
    batch: tuple[int, ...]  # the lengths of the axes that number matrices
    transform: str  # what a rule or a recipe calls it; `all` where nothing is routed
    why: str


class Routes(tuple[Row, ...]):
    """A tuple of rows, one for each leaf, that prints as a table."""

    unused: tuple[str, ...] = ()  # what is wrong with rules that no parameter matches

    def __repr__(self) -> str:
        """The table, and a line for each rule that no parameter matches."""
        rows = [("path", "shape", "seen as", "transform", "why")]
        rows += [(r.path, str(r.shape), _seen_as(r), r.transform, r.why) for r in self]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
        return "\n".join([*lines, *self.unused])

    __str__ = __repr__


def routes(tx: AnyTransform, params: Params) -> Routes:
    """Show which transform each parameter goes to, as which matrix, and why.

    Args:
        tx: any recipe, `route`, or chain or wrapper of such, optax's too.
        params: the parameters, or their shapes as `jax.ShapeDtypeStruct`.

    Returns:
        A sequence of rows `(path, shape, matrix, batch, transform, why)`, one for each leaf,
        that prints as a table. Of nested routes the inner one is shown, of routes in sequence
        both. A leaf that a view cuts has a row for each part. Below the table, and in the
        attribute `unused`, stand the rules of a `route` that no parameter matches.

    In recipes with `hidden=`, names and shapes decide by default. A predicate or a dict may name
    any matrix. An expression may too, even an embedding or a readout, but it never finds a leaf
    with one axis, row or column, or one that is named like a bias, a gain or a norm. The last
    axis of a leaf is its columns, as in kernels `[in, out]`: torch's and Equinox's weights
    `[out, in]` need `view_by_pattern`. In their convolutions, `[out, in, *window]`, the outputs
    are the rows.

    Limits: what `optax.partition` and `optax.masked` decide is not known here. Leaves that
        reach no route are `all`, with the matrix that SOAP or PSGD sees. Nothing is computed,
        unless `init` cannot be traced: then it is run on `params`.

    >>> params = {"wte": jnp.zeros((9, 4)), "up": {"w": jnp.zeros((4, 8)), "b": jnp.zeros(8)}}
    >>> gk.routes(gk.muon(), params)
    path  shape   seen as  transform  why
    up/b  (8,)             adam       one axis
    up/w  (4, 8)  4 x 8    matrices   a hidden matrix
    wte   (9, 4)           adam       named like an embedding ('wte')
    """
    check.transform("routes", "tx", tx)
    check.given("routes", params, "init")
    reported: list[Row] = []
    unused: list[str] = []
    token, unused_token = _reported.set(reported), _unused.set(unused)
    try:
        jax.eval_shape(
            lambda p: tx.init(p), params
        )  # a new function, so that JAX traces it again
    except TypeError:  # a hyperparameter that `inject_hyperparams` has traced
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(params)):
            raise
        reported.clear()
        unused.clear()
        tx.init(params)
    finally:
        _reported.reset(token)
        _unused.reset(unused_token)
    leaves = zip(leaf_paths(params), jax.tree.leaves(params))
    table = Routes(row for path, x in leaves for row in _rows(reported, path, x))
    table.unused = tuple(dict.fromkeys(unused))
    return table


def tell_unused(text: str) -> None:
    """Say that no parameter matches a rule: below the table of `routes`, else as a warning."""
    unused = _unused.get()
    if unused is None:
        warnings.warn(text, stacklevel=2)
    else:
        unused.append(text)


@contextlib.contextmanager
def deciding(rows: Callable[[], Iterable[Row]]) -> Iterator[None]:
    """Report `rows()`, except for leaves that a router inside this context reports itself."""
    reported = _reported.get()
    before = 0 if reported is None else len(reported)
    yield
    if reported is not None:
        own_rows = list(rows())
        reported[before:] = inner_rows = [
            _named(row, own_rows) for row in reported[before:]
        ]
        reported += [
            row for row in own_rows if not any(_is_of(r, row.path) for r in inner_rows)
        ]


def unrouted(
    path: str,
    shape: tuple[int, ...],
    matrix: tuple[int, ...] | None = None,
    batch: tuple[int, ...] = (),
) -> Row:
    """Row of a leaf that no router has claimed so far."""
    return Row(path, shape, matrix, batch, "all", "no rule on its way")


def _named(row: Row, outside: Sequence[Row]) -> Row:
    """`row`, with transform and reason of its `outside` row if no inner router has claimed it."""
    rows = (r for r in outside if _is_of(row, r.path) and row.transform == "all")
    return next((row._replace(transform=r.transform, why=r.why) for r in rows), row)


def _rows(reported: Sequence[Row], path: str, x: Any) -> list[Row]:
    """Rows of one leaf: one, or one for each part that it is cut into."""
    shape = np.shape(x)
    by_path: dict[str, Row] = {}
    for row in reported:
        if not _is_of(row, path):
            continue
        if row.path == path:
            row = row._replace(shape=shape)  # the shape of the leaf, not of a view
        first = by_path.get(row.path, row)
        if first is not row:
            matrix, batch = (first if first.matrix else row)[2:4]
            routed = [r for r in (first, row) if r.transform != "all"] or [first]
            names = [r.transform for r in routed]
            whys = [r.why for r in routed]
            row = Row(
                row.path, row.shape, matrix, batch, ", ".join(names), "; ".join(whys)
            )
        by_path[row.path] = row
    return list(by_path.values()) or [unrouted(path, shape)]


def _is_of(row: Row, path: str) -> bool:
    return row.path == path or row.path.startswith(f"{path}/")


def _seen_as(row: Row) -> str:
    if row.matrix is None:
        return ""
    batch = "".join(f"{n} of " for n in row.batch if n != 1)
    return f"{batch}{row.matrix[0]} x {row.matrix[1]}"
