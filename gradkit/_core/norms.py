"""Euclidean norms that neither overflow nor vanish, by two algorithms.

Along axes of one array the largest entry is divided out before anything is squared: each norm has
a scale of its own, at the price of three passes. Of whole trees squares are summed as they are, in
one pass, and again at other scales only where the sum left the range that it is exact in.
No norm exceeds the largest number of its dtype.
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
    """Norms along `axis`, which stays; safe for entries of 1e25 and of 1e-30."""
    x = numbers.opaque(x)
    largest = jnp.max(jnp.abs(x), axis, keepdims=True, initial=0)
    divisor = numbers.divisible(jax.lax.stop_gradient(largest))  # any would do
    norm = divisor * unscaled(x / divisor, axis)
    return jnp.minimum(norm, jnp.finfo(x.dtype).max)


def of_vector(x: jax.Array) -> jax.Array:
    """The norm of one vector, as a scalar."""
    return along(x, 0)[0]


def unscaled(x: jax.Array, axis: Axes) -> jax.Array:
    """Norms along `axis`, which stays, of entries whose squares are known to be in range."""
    return root(jnp.sum(jnp.square(x), axis, keepdims=True))


def finite_along(*pairs: tuple[jax.Array, Axes]) -> list[jax.Array]:
    """Norms of the finite entries of each array along axes, which stay.

    `unscaled` where that is exact for all of them, as for most gradients, else `along`.
    """
    if not pairs:
        return []
    pairs = numbers.opaque(pairs)
    sums = [jnp.sum(jnp.square(x), axes, keepdims=True) for x, axes in pairs]
    return jax.lax.cond(
        functools.reduce(jnp.logical_and, [jnp.all(_is_exact(x)) for x in sums]),
        lambda: [root(x) for x in sums],
        lambda: [along(numbers.finite(x), axes) for x, axes in pairs],
    )


def clip_factor(norm: jax.Array, limit: Any) -> jax.Array:
    """What brings a norm above `limit` down to it; 1 for any other."""
    above = norm > limit
    # the quotient comes last: XLA copies what is cheap into each kernel
    return jnp.where(above, limit, 1) / jnp.where(above, norm, 1)


def of_leaves(t: Tree) -> jax.Array:
    """The norm of every leaf's finite entries, as a vector `[leaves]`.

    The derivative of a norm of zero counts as zero.
    """
    zero = tree.zero_per_leaf(t)
    leaves = [x.astype(zero.dtype) for x in jax.tree.leaves(t)]
    return _of_leaves(leaves) if leaves else zero


def of_tree(t: Tree) -> jax.Array:
    """The norm of the finite entries of the whole tree as one vector; 0 if empty.

    What is too small for a plain sum of squares matters only where all of the tree is as small.
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
    found = _of_leaves(*primals)
    return found, _slope(found, primals[0], tangents[0])


@_of_tree.defjvp
def _slope_of_tree(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    found = _of_tree(*primals)
    each = jnp.broadcast_to(found, len(primals[0]))
    return found, jnp.sum(_slope(each, primals[0], tangents[0]))


def _slope(found: jax.Array, leaves: list[Any], changes: list[Any]) -> jax.Array:
    """How norms that are `found` change: for each leaf by its change along its direction."""
    units = tree.scale_each(numbers.inverse(found), [*map(numbers.finite, leaves)])
    return jnp.stack([jnp.sum(x * dx) for x, dx in zip(units, changes)])


def _roots(
    leaves: list[jax.Array],
    total: Callable[..., jax.Array],
    squares: Callable[[jax.Array, list[jax.Array]], jax.Array],
) -> jax.Array:
    """The roots of the `total` of each leaf's sum of squares, at a scale where that is exact.

    That is 1 for most gradients. Else `squares` sums again, at `far`, 1 and `1 / far`, of which the
    largest that does not overflow is the most exact. A loop does nothing where none is to be summed
    again, also under `vmap`, where both branches of a condition are computed; the barrier keeps XLA
    from taking out of it what depends on the leaves alone.
    """
    leaves = numbers.opaque(leaves)
    limits = jnp.finfo(leaves[0].dtype)
    sums = total(jnp.stack([_sum_squares(x) for x in leaves]))
    exact = _is_exact(sums)
    far = 2.0 ** (limits.maxexp * 5 // 8)
    largest = jnp.full_like(jnp.sum(sums), far)

    def again(carry: Any) -> Any:
        scale, found, exact = carry
        kept, scale = jax.lax.optimization_barrier((leaves, scale))
        sums = total(squares(scale, kept))
        roots = jnp.minimum(jnp.sqrt(sums), limits.max * scale) / scale
        found = jnp.where(exact, found, roots)
        return scale / far, found, exact | (sums < limits.max)

    def goes_on(carry: Any) -> jax.Array:
        return (carry[0] > far**-1.5) & ~jnp.all(carry[2])

    start = largest, jnp.sqrt(sums), exact
    return jax.lax.while_loop(goes_on, again, start)[1]


def _is_exact(squares: jax.Array) -> jax.Array:
    """Whether each of these sums of squares has neither overflowed nor lost what is too small."""
    limits = jnp.finfo(squares.dtype)
    return (squares > limits.tiny / limits.eps**2) & (squares < limits.max)


def _sum_squares(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(x))


def _squares_of_each(scale: jax.Array, leaves: list[jax.Array]) -> jax.Array:
    """The sum of the squares of `scale` times each leaf; leaves of one shape are worked as one."""
    stacks = _together([(x.shape, jax.typeof(x).sharding) for x in leaves])

    def squares(stack: list[int]) -> jax.Array:
        each = jnp.stack([leaves[i] for i in stack])
        return jax.lax.map(lambda x: _sum_squares(scale * numbers.finite(x)), each)

    order = np.argsort([i for stack in stacks for i in stack])
    return jnp.concatenate([*map(squares, stacks)])[order]


def _squares_of_all(scale: jax.Array, leaves: list[jax.Array]) -> jax.Array:
    """The sums of the squares of `scale` times many leaves, end to end; of what is sharded, of each."""
    sharded = [any(jax.typeof(x).sharding.spec) for x in leaves]
    ends = _together([i if apart else -1 for i, apart in enumerate(sharded)])

    def squares(places: list[int]) -> jax.Array:
        xs = [leaves[i] for i in places]
        x = jnp.concatenate([x.reshape(-1) for x in xs]) if len(xs) > 1 else xs[0]
        return _sum_squares(scale * numbers.finite(x))

    return jnp.stack([*map(squares, ends)])


def _together(alike: list[Any]) -> list[list[int]]:
    """The places of leaves that are worked as one: on a CPU of one kind, which compiles faster.

    Elsewhere, and on a mesh, each leaf stays where it is.
    """
    if jax.default_backend() != "cpu" or shard.devices() > 1:
        return [[i] for i in range(len(alike))]
    return kinds.places(alike, kinds.AT_ONCE)


def given_or(own: jax.Array, given: Any = None) -> jax.Array:
    """The norm `given` where it is a finite number, else `own`."""
    if given is None:
        return own
    given = jnp.asarray(given).astype(own.dtype)
    return jnp.where(jnp.isfinite(given), given, own)
