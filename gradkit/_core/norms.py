"""Euclidean norms without overflow or underflow, by two algorithms.

Norms along axes of one array divide by the largest entry before they square. This takes three
passes, and each norm has its own scale. Norms of trees sum squares in one pass. They sum again at
other scales only if the first sum is out of its exact range. No norm exceeds the largest number of
its dtype.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import kinds, numbers, shard, tree
from gradkit._core.derivative import root
from gradkit._core.numbers import Tree

Axes = int | tuple[int, ...]


def along(x: jax.Array, axis: Axes) -> jax.Array:
    """Norms along `axis`, with `keepdims`; safe for entries of 1e25 and of 1e-30."""
    x = numbers.opaque(x)
    largest = jnp.max(jnp.abs(x), axis, keepdims=True, initial=0)
    # no derivative: the norm does not depend on the scale
    divisor = numbers.divisible(jax.lax.stop_gradient(largest))
    norm = divisor * unscaled(x / divisor, axis)
    return jnp.minimum(norm, jnp.finfo(x.dtype).max)


def of_vector(x: jax.Array) -> jax.Array:
    """The norm of one vector, as a scalar."""
    return along(x, 0)[0]


def unscaled(x: jax.Array, axis: Axes) -> jax.Array:
    """Norms along `axis`, with `keepdims`; the squares of entries must be in range."""
    return root(jnp.sum(jnp.square(x), axis, keepdims=True))


def finite_along(*pairs: tuple[jax.Array, Axes]) -> list[jax.Array]:
    """Norms of the finite entries of each array along its axes, with `keepdims`.

    Squares are summed as they are if this is exact for all arrays, as for most gradients. If not,
    `along` computes all norms.
    """
    if not pairs:
        return []
    pairs = numbers.opaque(pairs)
    sums = [jnp.sum(jnp.square(x), axes, keepdims=True) for x, axes in pairs]
    return jax.lax.cond(
        are_exact(*sums),
        lambda: [root(x) for x in sums],
        lambda: [along(numbers.finite(x), axes) for x, axes in pairs],
    )


def largest(x: jax.Array) -> jax.Array:
    """The largest absolute value of the finite entries of `x`; 0 if there are none."""
    x = numbers.opaque(x)
    whole = jnp.max(jnp.abs(x), initial=0)
    return jax.lax.cond(
        jnp.isfinite(whole),
        lambda: whole,
        lambda: jnp.max(jnp.abs(numbers.finite(x)), initial=0),
    )


def clip_factor(norm: jax.Array, limit: Any) -> jax.Array:
    """`min(1, limit / norm)`, the factor that clips a norm to `limit`."""
    above = norm > limit
    # the quotient comes last: XLA copies cheap operations into each kernel
    return jnp.where(above, limit, 1) / jnp.where(above, norm, 1)


def of_leaves(t: Tree) -> jax.Array:
    """Norms of the finite entries of each leaf, as a vector `[leaves]`.

    The derivative at a norm of zero is zero.
    """
    zero = tree.zero_per_leaf(t)
    leaves = [x.astype(zero.dtype) for x in jax.tree.leaves(t)]
    return _of_leaves(leaves) if leaves else zero


def of_tree(t: Tree) -> jax.Array:
    """The norm of the finite entries of the whole tree as one vector; 0 if empty.

    Entries whose squares underflow count only if all entries of the tree are that small.
    """
    zero = tree.zero_per_leaf(t)
    leaves = [x.astype(zero.dtype) for x in jax.tree.leaves(t)]
    return _of_tree(leaves) if leaves else jnp.sum(zero)


@jax.custom_jvp
def _of_leaves(leaves: list[jax.Array]) -> jax.Array:
    return _roots(leaves, lambda sums: sums, _squares_of_each)


@jax.custom_jvp
def _of_tree(leaves: list[jax.Array]) -> jax.Array:
    return _roots(leaves, jnp.sum, _squares_of_all)


@_of_leaves.defjvp
def _slope_of_leaves(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    norms = _of_leaves(*primals)
    return norms, _slope(norms, primals[0], tangents[0])


@_of_tree.defjvp
def _slope_of_tree(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    norm = _of_tree(*primals)
    each = jnp.broadcast_to(norm, len(primals[0]))
    return norm, jnp.sum(_slope(each, primals[0], tangents[0]))


def _slope(norms: jax.Array, leaves: list[Any], changes: list[Any]) -> jax.Array:
    """Tangents of the norms `[leaves]`: `sum(x / norm * dx)` of each leaf."""
    units = tree.scale_each(numbers.inverse(norms), [*map(numbers.finite, leaves)])
    return jnp.stack([jnp.sum(x * dx) for x, dx in zip(units, changes)])


def _roots(
    leaves: list[jax.Array],
    total: Callable[..., jax.Array],
    squares: Callable[[jax.Array, list[jax.Array]], jax.Array],
) -> jax.Array:
    """The root of `total` of the leaves' sums of squares, at a scale where these are exact.

    The scale is 1 for most gradients. Otherwise `squares` sums again at `far`, 1 and `1 / far`. The
    largest scale without overflow is the most exact. A while loop, unlike `cond`, skips this
    under `vmap` too if no sum needs it. The barrier keeps XLA from hoisting computations on the
    leaves out of the loop.
    """
    leaves = numbers.opaque(leaves)
    limits = jnp.finfo(leaves[0].dtype)
    sums = total(jnp.stack([_sum_squares(x) for x in leaves]))
    exact = _is_exact(sums)
    far = 2.0 ** (limits.maxexp * 5 // 8)
    largest = jnp.full_like(jnp.sum(sums), far)

    def again(carry: Any) -> Any:
        scale, norms, exact = carry
        hidden, scale = jax.lax.optimization_barrier((leaves, scale))
        sums = total(squares(scale, hidden))
        rescaled = jnp.minimum(jnp.sqrt(sums), limits.max * scale) / scale
        norms = jnp.where(exact, norms, rescaled)
        return scale / far, norms, exact | (sums < limits.max)

    def goes_on(carry: Any) -> jax.Array:
        return (carry[0] > far**-1.5) & ~jnp.all(carry[2])

    start = largest, jnp.sqrt(sums), exact
    return jax.lax.while_loop(goes_on, again, start)[1]


def are_exact(*squares: jax.Array) -> jax.Array:
    """Whether all sums of squares are in the range without overflow or relevant underflow."""
    return functools.reduce(jnp.logical_and, [jnp.all(_is_exact(x)) for x in squares])


def _is_exact(squares: jax.Array) -> jax.Array:
    """Whether each sum of squares is in the range without overflow or relevant underflow."""
    limits = jnp.finfo(squares.dtype)
    return (squares > limits.tiny / limits.eps**2) & (squares < limits.max)


def _sum_squares(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(x))


def _squares_of_each(scale: jax.Array, leaves: list[jax.Array]) -> jax.Array:
    """`sum((scale * x)^2)` of each leaf, `[leaves]`; leaves of one shape are stacked."""
    stacks = _groups([(x.shape, jax.typeof(x).sharding) for x in leaves])

    def squares(stack: list[int]) -> jax.Array:
        each = jnp.stack([leaves[i] for i in stack])
        return jax.lax.map(lambda x: _sum_squares(scale * numbers.finite(x)), each)

    order = np.argsort([i for stack in stacks for i in stack])
    return jnp.concatenate([*map(squares, stacks)])[order]


def _squares_of_all(scale: jax.Array, leaves: list[jax.Array]) -> jax.Array:
    """`sum((scale * x)^2)` of each group of leaves, `[groups]`; a sharded leaf is a group alone."""
    sharded = [any(jax.typeof(x).sharding.spec) for x in leaves]
    groups = _groups([i if s else -1 for i, s in enumerate(sharded)])

    def squares(places: list[int]) -> jax.Array:
        xs = [leaves[i] for i in places]
        x = jnp.concatenate([x.reshape(-1) for x in xs]) if len(xs) > 1 else xs[0]
        return _sum_squares(scale * numbers.finite(x))

    return jnp.stack([*map(squares, groups)])


def _groups(alike: list[Any]) -> list[list[int]]:
    """Groups of indices of leaves that are summed together.

    On a CPU these are the leaves of equal `alike`, which compiles faster. On an accelerator or a
    mesh each leaf is its own group.
    """
    if jax.default_backend() != "cpu" or shard.devices() > 1:
        return [[i] for i in range(len(alike))]
    return kinds.places(alike, kinds.AT_ONCE)


def given_or(measured: jax.Array, norm: Any = None) -> jax.Array:
    """`norm` if it is given and finite, else `measured`."""
    if norm is None:
        return measured
    norm = jnp.asarray(norm).astype(measured.dtype)
    return jnp.where(jnp.isfinite(norm), norm, measured)
