"""Euclidean norms that neither overflow nor vanish: of leaves, of whole trees, along axes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import kinds, numbers, shard, tree
from gradkit._core.derivative import root
from gradkit._core.numbers import Tree


def along(x: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """Euclidean norms along `axis`, which stays; safe for entries of 1e25 and of 1e-30."""
    x = numbers.opaque(x)
    largest = jnp.max(jnp.abs(x), axis, keepdims=True, initial=0)
    divisor = numbers.divisible(jax.lax.stop_gradient(largest))  # any would do
    squares = jnp.sum(jnp.square(x / divisor), axis, keepdims=True)
    return divisor * root(squares)


def of_finite(
    *pairs: tuple[jax.Array, int | tuple[int, ...]],
) -> list[jax.Array]:
    """Euclidean norms of the finite entries of each array along axes, which stay.

    As safe as `norms`, which takes three passes where one will do for most gradients.
    """
    if not pairs:
        return []
    pairs = numbers.opaque(pairs)
    sums = [jnp.sum(jnp.square(x), axes, keepdims=True) for x, axes in pairs]
    limits = [jnp.finfo(x.dtype) for x in sums]
    fit = [(x > m.tiny / m.eps**2) & (x < m.max) for x, m in zip(sums, limits)]
    return jax.lax.cond(
        functools.reduce(jnp.logical_and, map(jnp.all, fit)),
        lambda: [root(x) for x in sums],
        lambda: [along(numbers.finite(x), axes) for x, axes in pairs],
    )


def clip_factor(norm: jax.Array, limit: Any) -> jax.Array:
    """What brings a norm above `limit` down to it; 1 for any other."""
    above = norm > limit
    # the quotient comes last: XLA copies what is cheap into each kernel
    return jnp.where(above, limit, 1) / jnp.where(above, norm, 1)


def sum_squares(x: jax.Array) -> jax.Array:
    """The sum of the squares of all entries, as a scalar."""
    return jnp.sum(jnp.square(x))


def of_leaves(t: Tree) -> jax.Array:
    """The Euclidean norm of every leaf's finite entries, as a vector `[leaves]`.

    Neither overflows on entries of 1e25 nor vanishes on entries of 1e-30: where a plain sum of
    squares leaves the range it is exact in, the leaves are summed again at up to three scales.
    The derivative of a norm of zero counts as zero.
    """
    zero = tree.zero_per_leaf(t)
    leaves = [x.astype(zero.dtype) for x in jax.tree.leaves(t)]
    return _of_leaves(leaves) if leaves else zero


def of_tree(t: Tree) -> jax.Array:
    """The Euclidean norm of the whole tree as one vector, as safe as `norms`; 0 if empty.

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
    """The roots of the `total` of the sums of squares of each leaf, and of `squares` at a scale.

    The largest scale at which they do not overflow is the most exact, of `far`, 1 and `1 / far`. A loop stays one under
    `vmap`, and within it the barrier keeps what depends on the leaves alone.
    """
    leaves = numbers.opaque(leaves)
    limits = jnp.finfo(leaves[0].dtype)
    sums = total(jnp.stack([sum_squares(x) for x in leaves]))
    exact = (sums > limits.tiny / limits.eps**2) & (sums < limits.max)
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


def _squares_of_each(scale: jax.Array, leaves: list[jax.Array]) -> jax.Array:
    """The sum of the squares of `scale` times each leaf; leaves of one shape are worked as one."""
    stacks = _together([(x.shape, jax.typeof(x).sharding) for x in leaves])

    def squares(stack: list[int]) -> jax.Array:
        each = jnp.stack([leaves[i] for i in stack])
        return jax.lax.map(lambda x: sum_squares(scale * numbers.finite(x)), each)

    order = np.argsort([i for stack in stacks for i in stack])
    return jnp.concatenate([*map(squares, stacks)])[order]


def _squares_of_all(scale: jax.Array, leaves: list[jax.Array]) -> jax.Array:
    """The sums of the squares of `scale` times many leaves, end to end; of what is sharded, of each."""
    sharded = [any(jax.typeof(x).sharding.spec) for x in leaves]
    ends = _together([i if apart else -1 for i, apart in enumerate(sharded)])

    def squares(places: list[int]) -> jax.Array:
        xs = [leaves[i] for i in places]
        x = jnp.concatenate([x.reshape(-1) for x in xs]) if len(xs) > 1 else xs[0]
        return sum_squares(scale * numbers.finite(x))

    return jnp.stack([*map(squares, ends)])


def _together(alike: list[Any]) -> list[list[int]]:
    """The places of leaves that are worked as one: on a CPU of one kind, which compiles faster.

    Elsewhere, and on a mesh, each leaf stays where it is.
    """
    if jax.default_backend() != "cpu" or shard.devices() > 1:
        return [[i] for i in range(len(alike))]
    return kinds.places(alike, kinds.AT_ONCE)


def of_vector(x: jax.Array) -> jax.Array:
    """The Euclidean norm of one short vector, divided by its largest entry first."""
    largest = jnp.max(jnp.abs(x), initial=0)
    divisor = numbers.divisible(jax.lax.stop_gradient(largest))  # any would do
    norm = divisor * root(sum_squares(x / divisor))
    return jnp.minimum(norm, jnp.finfo(x.dtype).max)


def given_or(own: jax.Array, given: Any = None) -> jax.Array:
    """The norm `given` where it is a finite number, else `own`."""
    if given is None:
        return own
    given = jnp.asarray(given).astype(own.dtype)
    return jnp.where(jnp.isfinite(given), given, own)
