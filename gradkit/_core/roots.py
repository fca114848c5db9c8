"""Inverse roots and eigenbases of what gradients are on average: positive `[*batch, n, n]`.

Factorizations see finite matrices of mean eigenvalue 1, whatever the size of the gradient, and
are taken for all leaves of one shape at once where that is faster (`batch.map_shapes`).
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import batch, derivative, lapack, linalg, shard, spectral, tree
from gradkit._core.condition import on_axes_of, when
from gradkit._core.types import Params, Scalar, Updates

# Above a limit that exact numbers may meet, for products in lower precision.
SLACK = 1.01


NONE = optax.MaskedNode()  # the matrix of a side that has none


class Sides(NamedTuple):
    """Two square matrices a leaf `[*batch, rows, cols]`, each side a tree like the parameters."""

    rows: Any  # [*batch, rows, rows]
    cols: Any  # [*batch, cols, cols]


def is_none(x: Any) -> bool:
    """Whether a side has no matrix."""
    return isinstance(x, optax.MaskedNode)


def of_sides(f: Callable[..., Any], *sides: Any) -> Any:
    """`f` of each matrix of one or more sides, also of those that are none."""
    return jax.tree.map(f, *sides, is_leaf=is_none)


def zeros(params: Params, max_size: int, batch_axes: batch.Axes = ()) -> Sides:
    """Zeros for each side of at most `max_size` of every matrix, in at least float32.

    A matrix of one row or one column, a vector in all but shape, has its short side alone.
    """

    def square(side: int, p: Any) -> Any:
        if p.ndim < 2 + len(batch_axes):
            return NONE
        shape, *sizes = batch.shape(p, batch_axes)
        n, other = sizes[side], sizes[1 - side]
        kept = n <= max_size and (other > 1 or (n == 1 and side == 0))
        if not kept:
            return NONE
        return on_axes_of(jnp.zeros((*shape, n, n), tree.wide_dtype(p)), p)

    side = lambda i: jax.tree.map(functools.partial(square, i), tree.bare(params))
    return Sides(side(0), side(1))


def identity(square: jax.Array) -> jax.Array:
    """The identities of the shape `[*batch, n, n]` of another array."""
    eye = jnp.eye(square.shape[-1], dtype=square.dtype)
    return on_axes_of(jnp.broadcast_to(eye, square.shape), square)


def read(updates: Updates) -> Updates:
    """`tree.read`, with every entry also limited so that the sum of all squares is finite."""
    return jax.tree.map(squarable, tree.read(updates))


def squarable(x: jax.Array) -> jax.Array:
    """`x`, its entries limited so that the sum of their squares is finite."""
    largest = jnp.sqrt(jnp.finfo(x.dtype).max / (4 * max(x.size, 1))).astype(x.dtype)
    return jnp.clip(x, -largest, largest)


def gram(x: jax.Array) -> jax.Array:
    r"""$x x^T$, in full precision."""
    return jnp.matmul(x, x.mT, precision=linalg.PRECISE)


def average_grams(
    decay: Scalar, old: Sides, updates: Updates, batch_axes: batch.Axes = ()
) -> Sides:
    r"""Averages of $g g^T$ and $g^T g$, of every matrix."""

    def along(axis: int, g: jax.Array, a: Any) -> Any:
        if is_none(a):
            return NONE
        x = batch.upright(g, batch_axes).astype(a.dtype)
        return gram(x.mT if axis else x)

    bare = tree.bare(updates)
    side = lambda i: jax.tree.map(functools.partial(along, i), bare, old[i])
    return tree.average(decay, old, Sides(side(0), side(1)))


def between(rows: Any, updates: Updates, cols: Any, batch_axes: batch.Axes) -> Updates:
    """`rows @ x @ cols` of every leaf's matrices, without those that are none."""

    def leaf(x: jax.Array, left: Any, right: Any) -> jax.Array:
        if is_none(left) and is_none(right):
            return x
        y = _product(left, batch.upright(x, batch_axes), right)
        return batch.like(y, x, batch_axes)

    return tree.map_bare(leaf, updates, rows, cols)


def _product(left: Any, x: jax.Array, right: Any) -> jax.Array:
    y = x if is_none(left) else left @ x.astype(left.dtype)
    return y if is_none(right) else y.astype(right.dtype) @ right


def limited_between(
    rows: Any, updates: Updates, cols: Any, most: Any, batch_axes: batch.Axes
) -> Updates:
    """`between`, the singular values of every leaf `limited` by its `most`."""

    def leaf(x: jax.Array, left: Any, right: Any, most: Scalar) -> jax.Array:
        if is_none(left) and is_none(right):
            return x
        product = lambda y: _product(left, y, right)
        return batch.like(
            limited(product, batch.upright(x, batch_axes), most), x, batch_axes
        )

    return tree.map_bare(leaf, updates, rows, cols, most)


def limited(
    f: Callable[[jax.Array], jax.Array], x: jax.Array, most: Scalar
) -> jax.Array:
    r"""The linear `f` of `[*batch, rows, cols]`, shortened where singular values exceed `most`.

    Where, more exactly, their mean $(\frac{1}{n} \sum_i \sigma_i^8)^{1/8}$ over the $n$ of the
    short side does: so none ends above $n^{1/8}$ `most`, and nothing happens where none is
    above `most`. `f` sees entries of at most 1, so that its size does not overflow before.
    """
    size = jnp.max(jnp.abs(x), (-2, -1), keepdims=True, initial=0)
    size = jax.lax.stop_gradient(size)  # any would do, but for overflow
    y = tree.finite(f(x / jnp.where(size > 0, size, 1)))
    mean = _mean_singular_value(y)
    room = SLACK * most / jnp.where(mean > 0, mean, 1)
    return y * jnp.minimum(size.astype(y.dtype), room.astype(y.dtype))


def _mean_singular_value(x: jax.Array) -> jax.Array:
    """The eighth root of the mean eighth power, `[*batch, 1, 1]`, in two matrix products."""
    size = jnp.max(jnp.abs(x), (-2, -1), keepdims=True, initial=0)
    size = jax.lax.stop_gradient(size)
    x = x / jnp.where(size > 0, size, 1)
    square = x @ x.mT if x.shape[-2] <= x.shape[-1] else x.mT @ x
    fourth = linalg.norms(square @ square, (-2, -1)) / max(square.shape[-1], 1) ** 0.5
    return size * derivative.root(derivative.root(fourth))


def most_of_average(
    b1: Scalar, decay: Scalar, step: jax.Array, dtype: Any
) -> jax.Array:
    r"""The most that $\lVert L^{-1/2} m \rVert$ can be, of averages $m$ of $g$ and $L$ of $g g^T$.

    With $m = \sum_s v_s g_s$ and $L = \sum_s w_s g_s g_s^T$, debiased, $\sqrt{\sum_s v_s^2 / w_s}$
    by Cauchy and Schwarz: what Adam's bound is for one number. Infinite where `decay` forgets
    gradients that `b1` remembers.
    """
    debias1, debias2 = (tree.one_minus_power(b, step, dtype) for b in (b1, decay))
    b1, decay = jnp.asarray(b1, dtype), jnp.asarray(decay, dtype)
    lasts = b1**2 < decay
    ratio = jnp.where(lasts, b1**2 / jnp.where(lasts, decay, 1), 0)
    ages = tree.one_minus_power(ratio, step, dtype) / (1 - ratio)
    newest = ((1 - b1) / debias1) ** 2 / ((1 - decay) / debias2)  # v_t^2 / w_t
    return jnp.where(lasts, jnp.sqrt(newest * ages), jnp.inf)


def most_between(
    most: jax.Array, m: Updates, grams: Sides, power: Scalar, damping: Scalar
) -> Any:
    r"""The most that $\lVert L^{-p} m R^{-q} \rVert$ can be, `power` being $p + q$, for each leaf.

    That is `most_of_average` where it is 1/2, $R$ being of $g^T g$, for between the two ends
    the norm is convex in $p$. Each power less counts as the largest eigenvalue, the trace at
    most, and each more as the least, the damping.
    """

    def leaf(_: jax.Array, left: Any, right: Any) -> jax.Array:
        sides = [a for a in (left, right) if not is_none(a)]
        if not sides:
            return most
        trace = jnp.trace(sides[0], axis1=-2, axis2=-1)[..., None, None]
        trace, less = jnp.where(trace > 0, trace, 1), 0.5 - power
        least = damping * trace / max(a.shape[-1] for a in sides)
        return most.astype(trace.dtype) * jnp.where(less > 0, trace, least) ** less

    return jax.tree.map(leaf, tree.bare(m), *grams)


def due(count: jax.Array, every: Scalar) -> jax.Array:
    """Whether roots are taken: at updates 1, 2, 4, 8, ..., and from `every` on at each `every`-th.

    The first statistics are of few gradients, and soon those of many others.
    """
    doubled = (count & (count + 1)) == 0
    return (count % every == 0) | (doubled & (count < every))


def above_rounding(low: Updates, bases: Sides, batch_axes: batch.Axes) -> Updates:
    """What is seen in these bases, `low`; what may be rounding of it counts as zero."""

    def leaf(x: jax.Array, rows: Any, cols: Any) -> jax.Array:
        if is_none(rows) and is_none(cols):
            return x
        y = batch.upright(x, batch_axes)
        sides = (-2, rows), (-1, cols)  # of an entry's column, and of its row
        sizes = [linalg.norms(y, axis) for axis, q in sides if not is_none(q)]
        if len(sizes) == 2:  # of all entries, spread over all
            whole, n = linalg.norms(sizes[0], -1), math.prod(y.shape[-2:])
            sizes.append(whole / math.sqrt(max(n, 1)))
        size = sum(sizes[1:], sizes[0])
        return batch.like(linalg.above_rounding(y, size), x, batch_axes)

    return tree.map_bare(leaf, low, *bases)


def turned(squares: Any) -> Any:
    """Every matrix transposed."""
    return jax.tree.map(lambda a: a.mT, squares)


def each(f: Callable[[jax.Array], jax.Array], squares: Any) -> Any:
    """The jitted `f` of every matrix: apart on a CPU, whose cores then share them, else by shape."""
    if jax.default_backend() == "cpu" and shard.devices() <= 1:
        return jax.tree.map(f, squares)
    leaves, structure = jax.tree.flatten(squares)
    return structure.unflatten(batch.map_shapes(f, leaves))


@jax.jit
def inverse_root(a: jax.Array, power: Scalar, damping: Scalar) -> jax.Array:
    r"""$(a + \mathrm{damping} \, \bar\lambda I)^{-\mathrm{power}}$, $\bar\lambda$ the mean eigenvalue.

    Eigenvalues under a rounding of the largest count as that much, so that no direction gets
    more than $\epsilon^{-\mathrm{power}}$. Of zero it is the identity.
    """
    if not a.size:
        return a
    mean, idle, a = _mean_eigenvalue(a), _idle(a), _set_apart(a)
    limits = jnp.finfo(a.dtype)

    def damped(values: jax.Array, power: Scalar, damping: Scalar) -> jax.Array:
        sums = jnp.maximum(values, 0) + jnp.asarray(damping, a.dtype)
        sums = jnp.maximum(sums, limits.eps * values[..., -1:])
        return jnp.where(sums > 0, sums, 1) ** -power

    root = spectral.of_eigenvalues(damped, a, power, damping)
    root = jnp.where((idle | idle.mT) & (identity(a) == 0), 0, root)  # but for rounding
    # the two powers apart: a product of eigenvalues and their mean may underflow
    known = jnp.maximum(jnp.where(mean > 0, mean, 1), limits.tiny)
    size = jnp.minimum(known**-power, limits.max * limits.eps**power)
    return jnp.where(mean > 0, size * root, identity(a)).astype(a.dtype)


def inverse_roots(
    grams: Sides, rows_power: Scalar, cols_power: Scalar, damping: Scalar
) -> Sides:
    """The `inverse_root` of each side; of one that is alone, to the sum of both powers."""
    both = rows_power + cols_power

    def side(squares: Any, others: Any, power: Scalar) -> Any:
        root = functools.partial(inverse_root, damping=damping)
        paired = of_sides(lambda a, b: NONE if is_none(b) else a, squares, others)
        alone = of_sides(lambda a, b: a if is_none(b) else NONE, squares, others)
        paired = each(functools.partial(root, power=power), paired)
        alone = each(functools.partial(root, power=both), alone)
        return of_sides(lambda a, b: b if is_none(a) else a, paired, alone)

    rows, cols = grams
    return Sides(side(rows, cols, rows_power), side(cols, rows, cols_power))


def renewed(due: jax.Array, take: Callable[[], Any], kept: Any, grams: Any) -> Any:
    """`take()`, the roots of `grams`, where `due`, else `kept`, but for identities of zero.

    An identity knows of no gradient: it is renewed once its matrix is not zero. To look whole
    matrices through is left to updates at which the first entry of a root is 1.
    """

    def blank(root: jax.Array, gram: jax.Array) -> jax.Array:
        same = jnp.all(root == identity(root), (-2, -1), keepdims=True)
        return same & (_mean_eigenvalue(gram) > 0)

    def look(kept: Any) -> Any:
        blanks = jax.tree.map(blank, kept, grams)
        pick = lambda blank, new, old: jnp.where(due | blank, new, old)
        renew = lambda kept: jax.tree.map(pick, blanks, take(), kept)
        return when(due | tree.some(blanks), renew, kept)

    ones = jax.tree.map(lambda root: root[..., :1, :1] == 1, kept)
    return when(due | tree.some(ones), look, kept)


def largest_eigenvalue(a: jax.Array) -> jax.Array:
    """That of every `[*batch, n, n]`: exact up to `n` of 32, else a lower bound, of sizes `[*batch]`.

    The bound is eight power steps from the column of the largest diagonal entry.
    """
    n = a.shape[-1]
    if not a.size:
        return jnp.zeros(a.shape[:-2], a.dtype)
    diagonal = jnp.diagonal(a, axis1=-2, axis2=-1)
    largest = jnp.max(diagonal, -1)
    a = a / jnp.where(largest > 0, largest, 1)[..., None, None]
    if n <= 32:
        return largest * _exact_largest(a)
    start = jnp.argmax(diagonal, -1)[..., None, None]
    x = jnp.take_along_axis(a, start, -1)

    def step(_: int, x: jax.Array) -> jax.Array:
        return a @ (x / jnp.maximum(_length(x), 1e-30))

    return largest * _length(jax.lax.fori_loop(0, 8, step, x))[..., 0, 0]


def _length(x: jax.Array) -> jax.Array:
    return derivative.root(jnp.sum(jnp.square(x), (-2, -1), keepdims=True))


@jax.custom_jvp
def _exact_largest(a: jax.Array) -> jax.Array:
    return lapack.eigvalsh(a)[..., -1]


@_exact_largest.defjvp
def _of_exact_largest(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (a,), (change,) = primals, tangents
    x = lapack.eigh(a)[1][..., -1:]
    return _exact_largest(a), jnp.sum(x * (change @ x), (-2, -1))


@jax.jit
def eigenbasis(a: jax.Array) -> jax.Array:
    """Orthonormal eigenvectors as rows, that of the largest eigenvalue first."""
    if not a.size:
        return a
    vectors = lapack.eigh(row_major(_set_apart(a)))[1]
    return linalg.signed(vectors).mT[..., ::-1, :]


def pushed(grams: Sides, bases: Sides) -> Sides:
    """Each basis times its matrix of mean eigenvalue 1; a vector that it makes zero stays."""
    return jax.tree.map(
        _unless_zero, jax.tree.map(_product_of_rows, grams, bases), bases
    )


def _product_of_rows(a: jax.Array, q: jax.Array) -> jax.Array:
    return jnp.matmul(q, _of_mean_one(a)[0], precision=linalg.PRECISE)


def _unless_zero(moved: jax.Array, q: jax.Array) -> jax.Array:
    """Every row of `moved`, or that of `q` where it is zero, so that no basis loses a vector."""
    return jnp.where(jnp.any(moved != 0, -1, keepdims=True), moved, q)


def power_step(grams: Sides, bases: Sides) -> tuple[Sides, Sides]:
    """Bases after one step of power iteration, and the order their vectors were put in.

    That is the order of the eigenvalues as the old bases see them, the largest first.
    """

    def order(q: jax.Array, moved: jax.Array) -> jax.Array:
        return jnp.argsort(jnp.sum(q * moved, -1), axis=-1, descending=True)

    def sort(moved: jax.Array, order: jax.Array) -> jax.Array:
        return jnp.take_along_axis(moved, order[..., None], -2)

    moved = jax.tree.map(_product_of_rows, grams, bases)
    orders = jax.tree.map(order, bases, moved)
    moved = jax.tree.map(_unless_zero, moved, bases)
    return each(orthonormal, jax.tree.map(sort, moved, orders)), orders


def permuted(rows: Any, updates: Updates, cols: Any, batch_axes: batch.Axes) -> Updates:
    """The rows and columns of every leaf's matrices in these orders, where there are any.

    On a mesh of whole matrices: XLA fails to take columns of shards.
    """

    def leaf(x: jax.Array, first: Any, last: Any) -> jax.Array:
        if is_none(first) and is_none(last):
            return x
        y = shard.replicated(batch.upright(x, batch_axes))
        y = y if is_none(last) else jnp.take_along_axis(y, last[..., None, :], -1)
        y = y if is_none(first) else jnp.take_along_axis(y, first[..., :, None], -2)
        return batch.like(shard.replicated(y), x, batch_axes)

    return tree.map_bare(leaf, updates, rows, cols)


@jax.jit
def orthonormal(x: jax.Array) -> jax.Array:
    """Orthonormal rows, the first of which span what the first of `x` do."""
    return row_major(linalg.signed(lapack.orthonormal(x.mT)).mT)


def row_major(x: jax.Array) -> jax.Array:
    """`x`, in memory row by row on both sides of LAPACK, which has it column by column.

    XLA would give LAPACK's order to what the state keeps, and copy it at every update.
    """
    return jax.lax.optimization_barrier(x.reshape(-1)).reshape(x.shape)


def _of_mean_one(a: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`a` over its mean eigenvalue, and that, `[*batch, 1, 1]`; zero stays zero."""
    mean = _mean_eigenvalue(a)
    return a / jnp.where(mean > 0, mean, 1), mean


def _set_apart(a: jax.Array) -> jax.Array:
    """`a` over its mean eigenvalue, and -1 on the diagonal where its row is zero.

    Such a row never had a gradient. Its axis is then an eigenvector of its own, the last, and not
    one of the many of eigenvalue 0, in which it would be mixed with others and move as they do.
    """
    a = _of_mean_one(a)[0]
    return a - jnp.where(_idle(a), identity(a), 0)


def _idle(a: jax.Array) -> jax.Array:
    """Whether each row of every matrix is zero, `[*batch, n, 1]`."""
    return jnp.all(a == 0, -1, keepdims=True)


def _mean_eigenvalue(a: jax.Array) -> jax.Array:
    """That of every matrix, `[*batch, 1, 1]`."""
    return jnp.trace(a, axis1=-2, axis2=-1)[..., None, None] / max(a.shape[-1], 1)
