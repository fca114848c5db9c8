"""Kronecker factors: a square matrix for the rows and one for the columns of each leaf's matrices."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import derivative, norms, numbers, paths, shard, tree
from gradkit._core.condition import on_axes_of, when
from gradkit._core.matrix import layout, linalg, roots, stacks
from gradkit._core.types import Params, Scalar, Updates

# Widens a bound that exact arithmetic attains, since products may be in lower precision.
SLACK = 1.01

NONE = optax.MaskedNode()  # in place of a factor, for a side without one


class Sides(NamedTuple):
    """Kronecker factors of leaves `[*batch, rows, cols]`, each side a tree like the parameters."""

    rows: Any  # [*batch, rows, rows]
    cols: Any  # [*batch, cols, cols]


def is_none(x: Any) -> bool:
    """Whether a side has no factor."""
    return isinstance(x, optax.MaskedNode)


def zeros(params: Params, max_size: int, batch_axes: layout.Axes = ()) -> Sides:
    """Zero factors for every side of at most `max_size`, in at least float32.

    A matrix of one row or one column has one factor, `[1, 1]`.
    """

    def square(side: int, p: Any) -> Any:
        if p.ndim < 2 + len(batch_axes):
            return NONE
        shape, *sizes = layout.shape(p, batch_axes)
        n, other = sizes[side], sizes[1 - side]
        has_factor = n <= max_size and (other > 1 or (n == 1 and side == 0))
        if not has_factor:
            return NONE
        return on_axes_of(jnp.zeros((*shape, n, n), numbers.wide_dtype(p)), p)

    side = lambda i: jax.tree.map(functools.partial(square, i), paths.unboxed(params))
    return Sides(side(0), side(1))


def ema_of_grams(
    decay: Scalar, old: Sides, updates: Updates, batch_axes: layout.Axes = ()
) -> Sides:
    r"""The EMAs of $g g^T$ and $g^T g$ of every matrix, for the sides that have factors."""

    def gram_along(axis: int, g: jax.Array, a: Any) -> Any:
        if is_none(a):
            return NONE
        x = layout.as_matrix(g, batch_axes).astype(a.dtype)
        return roots.gram(x.mT if axis else x)

    grads = paths.unboxed(updates)
    side = lambda i: jax.tree.map(functools.partial(gram_along, i), grads, old[i])
    return tree.ema(decay, old, Sides(side(0), side(1)))


def multiply(
    rows: Any, updates: Updates, cols: Any, batch_axes: layout.Axes
) -> Updates:
    """`rows @ x @ cols` for every leaf's matrices; a side without a factor is skipped."""

    def leaf(x: jax.Array, left: Any, right: Any) -> jax.Array:
        if is_none(left) and is_none(right):
            return x
        y = _product(left, layout.as_matrix(x, batch_axes), right)
        return layout.like(y, x, batch_axes)

    return paths.map_unboxed(leaf, updates, rows, cols)


def _product(left: Any, x: jax.Array, right: Any) -> jax.Array:
    y = x if is_none(left) else left @ x.astype(left.dtype)
    return y if is_none(right) else y.astype(right.dtype) @ right


def multiply_limited(
    rows: Any, updates: Updates, cols: Any, limits: Any, batch_axes: layout.Axes
) -> Updates:
    """`rows @ x @ cols` like `multiply`, shrunk so that singular values stay near `limits`."""

    def leaf(x: jax.Array, left: Any, right: Any, limit: Scalar) -> jax.Array:
        if is_none(left) and is_none(right):
            return x
        product = lambda y: _product(left, y, right)
        y = limit_spectrum(product, layout.as_matrix(x, batch_axes), limit)
        return layout.like(y, x, batch_axes)

    return paths.map_unboxed(leaf, updates, rows, cols, limits)


def limit_spectrum(
    f: Callable[[jax.Array], jax.Array], x: jax.Array, limit: Scalar
) -> jax.Array:
    r"""`f(x)` for a linear `f` of `[*batch, rows, cols]`, shrunk to singular values near `limit`.

    They are measured by their mean $(\frac{1}{n} \sum_i \sigma_i^8)^{1/8}$ over the short side
    $n$. So none ends above about $n^{1/8}$ `limit`, and nothing changes if all are below `limit`.
    `x` is scaled to entries of at most 1 before `f`, so that `f` does not overflow.
    """
    size = jnp.max(jnp.abs(x), (-2, -1), keepdims=True, initial=0)
    size = jax.lax.stop_gradient(size)  # the result does not depend on it
    y = numbers.finite(f(x / jnp.where(size > 0, size, 1)))
    mean = _mean_singular_value(y)
    room = SLACK * limit / jnp.where(mean > 0, mean, 1)
    return y * jnp.minimum(size.astype(y.dtype), room.astype(y.dtype))


def _mean_singular_value(x: jax.Array) -> jax.Array:
    """`mean(sigma^8)^(1/8)` of the singular values, `[*batch, 1, 1]`, in two matrix products."""
    size = jnp.max(jnp.abs(x), (-2, -1), keepdims=True, initial=0)
    size = jax.lax.stop_gradient(size)
    x = x / jnp.where(size > 0, size, 1)
    square = x @ x.mT if x.shape[-2] <= x.shape[-1] else x.mT @ x
    fourth = norms.along(square @ square, (-2, -1)) / max(square.shape[-1], 1) ** 0.5
    return size * derivative.root(derivative.root(fourth))


def limit_of_ema(b1: Scalar, decay: Scalar, step: jax.Array, dtype: Any) -> jax.Array:
    r"""The bound on $\lVert L^{-1/2} m \rVert$ for EMAs $m$ of $g$ and $L$ of $g g^T$.

    With $m = \sum_s v_s g_s$ and $L = \sum_s w_s g_s g_s^T$, bias-corrected, it is
    $\sqrt{\sum_s v_s^2 / w_s}$ by Cauchy-Schwarz, the matrix form of Adam's bound. $m$ decays by
    `b1`, and $L$ by `decay`. If `b1^2 >= decay`, the sum grows without end, and the bound is
    infinity.
    """
    correction1, correction2 = (
        numbers.one_minus_power(b, step, dtype) for b in (b1, decay)
    )
    b1, decay = jnp.asarray(b1, dtype), jnp.asarray(decay, dtype)
    converges = b1**2 < decay
    ratio = jnp.where(converges, b1**2 / jnp.where(converges, decay, 1), 0)
    geometric_sum = numbers.one_minus_power(ratio, step, dtype) / (1 - ratio)
    newest = ((1 - b1) / correction1) ** 2 / ((1 - decay) / correction2)  # v_t^2 / w_t
    return jnp.where(converges, jnp.sqrt(newest * geometric_sum), jnp.inf)


def limits_of_product(
    limit: jax.Array, m: Updates, grams: Sides, power: Scalar, damping: Scalar
) -> Any:
    r"""A bound on $\lVert L^{-p} m R^{-q} \rVert$ for each leaf, with `power` $= p + q$.

    `limit` is from `limit_of_ema`, and $R$ is the EMA of $g^T g$. At $p + q = 1/2$ the bound is
    `limit`, as the norm is convex in $p$ between $p = 0$ and $p = 1/2$. A smaller `power`
    multiplies it by a power of the largest eigenvalue, at most the trace; a larger one divides
    it by a power of the smallest, the damping.
    """

    def leaf(_: jax.Array, left: Any, right: Any) -> jax.Array:
        sides = [a for a in (left, right) if not is_none(a)]
        if not sides:
            return limit
        trace = jnp.trace(sides[0], axis1=-2, axis2=-1)[..., None, None]
        trace, less = jnp.where(trace > 0, trace, 1), 0.5 - power
        least = damping * trace / max(a.shape[-1] for a in sides)
        return limit.astype(trace.dtype) * jnp.where(less > 0, trace, least) ** less

    return jax.tree.map(leaf, paths.unboxed(m), *grams)


def above_rounding(updates: Updates, bases: Sides, batch_axes: layout.Axes) -> Updates:
    """Updates in the coordinates of `bases`, with zeros for entries that may be rounding errors."""

    def leaf(x: jax.Array, rows: Any, cols: Any) -> jax.Array:
        if is_none(rows) and is_none(cols):
            return x
        y = layout.as_matrix(x, batch_axes)
        sides = (-2, rows), (-1, cols)  # norms of columns, and of rows
        sizes = [norms.along(y, axis) for axis, q in sides if not is_none(q)]
        if len(sizes) == 2:  # and the RMS of all entries
            norm, n = norms.along(sizes[0], -1), math.prod(y.shape[-2:])
            sizes.append(norm / math.sqrt(max(n, 1)))
        size = sum(sizes[1:], sizes[0])
        return layout.like(linalg.above_rounding(y, size), x, batch_axes)

    return paths.map_unboxed(leaf, updates, *bases)


def transposed(squares: Any) -> Any:
    """Every matrix transposed."""
    return jax.tree.map(lambda a: a.mT, squares)


def map_squares(f: Callable[[jax.Array], jax.Array], squares: Any) -> Any:
    """A jitted `f` of every matrix.

    On one CPU device each matrix is one call, to use all cores. Elsewhere all matrices of one
    shape are one call.
    """
    if jax.default_backend() == "cpu" and shard.devices() <= 1:
        return jax.tree.map(f, squares)
    leaves, structure = jax.tree.flatten(squares)
    return structure.unflatten(stacks.map_shapes(f, leaves))


def inverse_roots(
    grams: Sides, rows_power: Scalar, cols_power: Scalar, damping: Scalar
) -> Sides:
    """`inverse_root` of each factor; the only factor of a leaf takes the sum of both powers."""
    both = rows_power + cols_power
    map_sides = functools.partial(jax.tree.map, is_leaf=is_none)

    def side(squares: Any, others: Any, power: Scalar) -> Any:
        root = functools.partial(roots.inverse_root, damping=damping)
        paired = map_sides(lambda a, b: NONE if is_none(b) else a, squares, others)
        alone = map_sides(lambda a, b: a if is_none(b) else NONE, squares, others)
        paired = map_squares(functools.partial(root, power=power), paired)
        alone = map_squares(functools.partial(root, power=both), alone)
        return map_sides(lambda a, b: b if is_none(a) else a, paired, alone)

    rows, cols = grams
    return Sides(side(rows, cols, rows_power), side(cols, rows, cols_power))


def roots_due(count: jax.Array, every: Scalar) -> jax.Array:
    """Whether this update, after `count` others, renews the roots.

    Updates 1, 2, 4, 8, ... do, and from `every` on each `every`-th. The first statistics are of
    few gradients and change fast.
    """
    is_power_of_two = (count & (count + 1)) == 0  # this update's number, `count + 1`
    return (count % every == 0) | (is_power_of_two & (count < every))


def renew_roots(
    due: jax.Array, take: Callable[[], Any], old: Any, old_grams: Any, grams: Any
) -> Any:
    """The roots of `grams`, computed by `take`, where `due`; else the `old` roots.

    A matrix that has its first gradient does not wait: the root of its zero statistics is the
    identity.
    """

    def is_first(old: jax.Array, new: jax.Array) -> jax.Array:
        return (roots.mean_eigenvalue(old) == 0) & (roots.mean_eigenvalue(new) > 0)

    first = jax.tree.map(is_first, old_grams, grams)
    pick = lambda first, new, old: jnp.where(due | first, new, old)
    renew = lambda old: jax.tree.map(pick, first, take(), old)
    return when(due | tree.any_true(first), renew, old)
