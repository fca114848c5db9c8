"""Arithmetic on whole trees, and the library's one policy for numbers.

`read` on the way in, `like` on the way out. In between, everything is computed in at least
float32; state is kept in at least float32; an update leaves in its gradient's dtype.
A non-finite entry of a gradient counts as zero, so that one bad step poisons no state. Steps,
which come after directions, take what they are given (`wide`).
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.tree_util import keystr, tree_leaves_with_path

from gradkit._core import condition, kinds, shard
from gradkit._core.derivative import hypot, root

Tree = Any


def opaque(t: Tree) -> Tree:
    """`t`, of whose values XLA knows nothing when it compiles.

    It reorders products of what it knows, such as the gradient of a parameter that the loss does
    not use, and one of the orders may overflow: `(a * 0)^2` became `a^2 * 0^2`, infinity times 0.
    A barrier costs nothing on a CPU, but keeps an accelerator from doing what is before it and
    after it in one kernel. There the larger of a number and minus infinity stands for the number,
    which XLA cannot know either, if this infinity is behind the barrier.
    """
    if not is_compiled():
        return t
    hide = jax.lax.optimization_barrier

    @functools.cache
    def least(dtype: Any) -> jax.Array:
        return hide(np.fmin(np.array(-np.inf, dtype), jnp.finfo(dtype).min))

    leaves, structure = jax.tree.flatten(t)
    real = [i for i, x in enumerate(leaves) if is_real(x)]
    if jax.default_backend() == "cpu":
        hidden = hide([leaves[i] for i in real])
    else:
        hidden = [jnp.maximum(leaves[i], least(leaves[i].dtype)) for i in real]
    for i, x in zip(real, hidden):
        leaves[i] = x
    return structure.unflatten(leaves)


def is_compiled() -> bool:
    """Whether what is called here is traced to be compiled, and not done at once."""
    return isinstance(jax.lax.optimization_barrier(np.array(False)), Tracer)


def by_shape(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` of trees of arrays alone, traced once for all that are of the same shapes."""
    return jax.jit(f) if is_compiled() else f


def map_by_shape(f: Callable[..., Any], t: Tree, *rest: Tree) -> Tree:
    """`jax.tree.map`, for an `f` of arrays alone, which is traced once for all leaves of a shape."""
    return jax.tree.map(by_shape(f), t, *rest)


def is_real(x: Any) -> bool:
    """Whether the leaf `x` is an array of real floating numbers."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)


def wide_dtype(x: Any) -> Any:
    """The dtype `x` is computed and kept in: at least float32."""
    return x.dtype if jnp.finfo(x.dtype).bits >= 32 else jnp.dtype(jnp.float32)


def without_nan(x: jax.Array) -> jax.Array:
    """`x`, with every non-finite entry counted as zero."""
    return jax.lax.select(jax.lax.is_finite(x), x, jnp.zeros_like(x))


def finite(x: jax.Array) -> jax.Array:
    """`without_nan`, such that XLA computes it again for each reader.

    The last line rounds nothing: what depends on one array alone XLA computes again, instead of
    writing it to memory and reading it back.
    """
    limits = jnp.finfo(x.dtype)
    return jax.lax.reduce_precision(without_nan(x), limits.nexp, limits.nmant)


def read(updates: Tree) -> Tree:
    """`updates` in at least float32, with every non-finite entry counted as zero."""
    return jax.tree.map(lambda g: finite(g.astype(wide_dtype(g))), updates)


def read_squarable(updates: Tree) -> Tree:
    """`read`, with every entry also limited so that its square is finite, debiased too."""

    def leaf(g: jax.Array) -> jax.Array:
        g = g.astype(wide_dtype(g))
        largest = np.sqrt(jnp.finfo(g.dtype).max / 4)
        return jax.lax.clamp(-largest, without_nan(g), largest)

    return jax.tree.map(leaf, updates)


def wide(t: Tree) -> Tree:
    """`t` in at least float32, every entry as it is; shapes without values stay such.

    So do leaves that are no real numbers, such as weights in int8.
    """

    def leaf(x: Any) -> Any:
        if not is_real(x):
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(x.shape, wide_dtype(x))
        return x.astype(wide_dtype(x))

    return jax.tree.map(leaf, t)


def increment(count: jax.Array) -> jax.Array:
    """`count + 1`, which stays at the largest number of its dtype once it is there."""
    return jnp.asarray(optax.safe_increment(count))


def like(x: Tree, y: Tree) -> Tree:
    """`x` in `y`'s dtypes, where both are real numbers."""

    def leaf(xi: Any, yi: Any) -> Any:
        return xi.astype(yi.dtype) if is_real(xi) and is_real(yi) else xi

    return jax.tree.map(leaf, x, y)


def zeros(t: Tree) -> Tree:
    """Zeros shaped like `t`, in at least float32: the start of every average."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=wide_dtype(x)), t)


def zero_per_leaf(t: Tree) -> jax.Array:
    """One zero for each leaf, as a vector `[leaves]` in at least float32."""
    dtypes = [wide_dtype(x) for x in jax.tree.leaves(t)]
    widest = max(dtypes, key=lambda d: d.itemsize, default=jnp.dtype(jnp.float32))
    return condition.varying_as(jnp.zeros(len(dtypes), widest), t)


def average(decay: Any, old: Tree, new: Tree) -> Tree:
    """`decay * old + (1 - decay) * new`, kept in `old`'s dtype."""

    def leaf(o: jax.Array, n: jax.Array) -> jax.Array:
        return (decay * o + (1 - decay) * n.astype(o.dtype)).astype(o.dtype)

    return jax.tree.map(leaf, old, new)


def average_square(decay: Any, old: Tree, new: Tree) -> Tree:
    """`decay * old + (1 - decay) * new^2`, kept in `old`'s dtype."""
    return average(decay, old, jax.tree.map(jnp.square, new))


def average_root(decay: Any, old: Tree, new: Tree) -> Tree:
    """The root of `decay * old^2 + (1 - decay) * new^2`, kept in `old`'s dtype.

    Nothing is squared as it is, so that entries of 1e25 stay finite and of 1e-30 above zero.
    """

    def leaf(o: jax.Array, n: jax.Array) -> jax.Array:
        size = hypot(decay**0.5 * o, (1 - decay) ** 0.5 * n.astype(o.dtype))
        return jnp.minimum(size, jnp.finfo(o.dtype).max).astype(o.dtype)

    return jax.tree.map(leaf, old, new)


def debias(average: Tree, decay: Any, step: jax.Array) -> Tree:
    """`average / (1 - decay^step)`: an average as if it had not begun at zero."""
    weights = one_minus_powers(decay, step, average)
    return jax.tree.map(lambda x: x / weights[x.dtype], average)


def debias_root(root: Tree, decay: Any, step: jax.Array) -> Tree:
    """What `debias` does to an average square, to its root."""
    return jax.tree.map(
        lambda x: x / jnp.sqrt(one_minus_power(decay, step, x.dtype)), root
    )


def over_root(numerator: jax.Array, root: jax.Array, floor: Any) -> jax.Array:
    """`numerator / (root + floor)`, 0 where that is by zero, which a known floor may rule out."""
    known = isinstance(floor, float | int)
    if known and floor >= jnp.finfo(numerator.dtype).tiny:
        return numerator / (root + floor)
    return ratio(numerator, root + floor)


def ratio(numerator: Tree, denominator: Tree) -> Tree:
    """Leaf by leaf quotients, 0 where the denominator is: no gradient yet, no `eps` either."""

    def leaf(n: jax.Array, d: jax.Array) -> jax.Array:
        none = d == 0
        return jnp.where(none, 0, n / jnp.where(none, 1, d))

    return jax.tree.map(leaf, numerator, denominator)


def one_minus_powers(decay: Any, step: jax.Array, t: Tree) -> dict[Any, jax.Array]:
    """`one_minus_power`, in each dtype of `t`."""
    dtypes = {x.dtype: None for x in jax.tree.leaves(t)}
    return {d: one_minus_power(decay, step, d) for d in dtypes}


def one_minus_power(decay: Any, step: jax.Array, dtype: Any) -> jax.Array:
    """`1 - decay^step` without cancellation when `decay` is close to 1."""
    if isinstance(decay, float | int):
        log = math.log(decay) if decay > 0 else -math.inf
    else:
        log = jnp.log(decay)
    return -jnp.expm1(step.astype(dtype) * log)


def scale(a: Any, x: Tree) -> Tree:
    """`a * x`, each leaf in its own dtype."""
    return jax.tree.map(lambda xi: (a * xi).astype(xi.dtype), x)


def clip_factor(norm: jax.Array, limit: Any) -> jax.Array:
    """What brings a norm above `limit` down to it; 1 for any other."""
    above = norm > limit
    # the quotient comes last: XLA copies what is cheap into each kernel
    return jnp.where(above, limit, 1) / jnp.where(above, norm, 1)


def scale_each(a: jax.Array, x: Tree) -> Tree:
    """Leaf `i` of `x` times `a[i]`, each leaf in its own dtype."""
    leaves, structure = jax.tree.flatten(x)
    scaled = [(ai.astype(xi.dtype) * xi) for ai, xi in zip(numbers(a), leaves)]
    return structure.unflatten(scaled)


def numbers(a: jax.Array) -> list[jax.Array]:
    """The entries of a vector, for each leaf its own; of a stack, its arrays.

    On a CPU at places that XLA does not know: leaves of one shape then share one kernel, where
    else each has its own, of which compiling takes twenty times as long.
    """
    if jax.default_backend() != "cpu":
        return list(a)
    places = jax.lax.cond(
        jax.lax.optimization_barrier(np.array(False)),
        lambda: [np.int32(0) for _ in a],
        lambda: [np.int32(i) for i in range(len(a))],
    )
    at = functools.partial(jax.lax.dynamic_index_in_dim, a, keepdims=False)
    return [at(place, allow_negative_indices=False) for place in places]


def sum_squares(x: jax.Array) -> jax.Array:
    """The sum of the squares of all entries, as a scalar."""
    return jnp.sum(jnp.square(x))


def norms(t: Tree) -> jax.Array:
    """The Euclidean norm of every leaf's finite entries, as a vector `[leaves]`.

    Neither overflows on entries of 1e25 nor vanishes on entries of 1e-30: where a plain sum of
    squares leaves the range it is exact in, the leaves are summed again at up to three scales.
    The derivative of a norm of zero counts as zero.
    """
    zero = zero_per_leaf(t)
    leaves = [x.astype(zero.dtype) for x in jax.tree.leaves(t)]
    return _norms(leaves) if leaves else zero


def norm(t: Tree) -> jax.Array:
    """The Euclidean norm of the whole tree as one vector, as safe as `norms`; 0 if empty.

    What is too small for a plain sum of squares matters only where all of the tree is as small.
    """
    zero = zero_per_leaf(t)
    leaves = [x.astype(zero.dtype) for x in jax.tree.leaves(t)]
    return _norm(leaves) if leaves else jnp.sum(zero)


@jax.custom_jvp
def _norms(leaves: list[jax.Array]) -> jax.Array:
    return _roots(leaves, lambda sums: sums, _squares_of_each)


@jax.custom_jvp
def _norm(leaves: list[jax.Array]) -> jax.Array:
    return _roots(leaves, jnp.sum, _squares_of_all)


@_norms.defjvp
def _of_norms(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    found = _norms(*primals)
    return found, _slope(found, primals[0], tangents[0])


@_norm.defjvp
def _of_norm(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    found = _norm(*primals)
    each = jnp.broadcast_to(found, len(primals[0]))
    return found, jnp.sum(_slope(each, primals[0], tangents[0]))


def _slope(found: jax.Array, leaves: list[Any], changes: list[Any]) -> jax.Array:
    """How norms that are `found` change: for each leaf by its change along its direction."""
    units = scale_each(inverse(found), [*map(finite, leaves)])
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
    leaves = opaque(leaves)
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
        return jax.lax.map(lambda x: sum_squares(scale * finite(x)), each)

    order = np.argsort([i for stack in stacks for i in stack])
    return jnp.concatenate([*map(squares, stacks)])[order]


def _squares_of_all(scale: jax.Array, leaves: list[jax.Array]) -> jax.Array:
    """The sums of the squares of `scale` times many leaves, end to end; of what is sharded, of each."""
    sharded = [any(jax.typeof(x).sharding.spec) for x in leaves]
    ends = _together([i if apart else -1 for i, apart in enumerate(sharded)])

    def squares(places: list[int]) -> jax.Array:
        xs = [leaves[i] for i in places]
        x = jnp.concatenate([x.reshape(-1) for x in xs]) if len(xs) > 1 else xs[0]
        return sum_squares(scale * finite(x))

    return jnp.stack([*map(squares, ends)])


def _together(alike: list[Any]) -> list[list[int]]:
    """The places of leaves that are worked as one: on a CPU of one kind, which compiles faster.

    Elsewhere, and on a mesh, each leaf stays where it is.
    """
    if jax.default_backend() != "cpu" or shard.devices() > 1:
        return [[i] for i in range(len(alike))]
    return kinds.places(alike, kinds.AT_ONCE)


def divisible(x: jax.Array) -> jax.Array:
    """`x`, kept to numbers whose reciprocals neither overflow nor are flushed to zero."""
    tiny = jnp.finfo(x.dtype).tiny
    return jnp.clip(x, tiny, 1 / tiny)


def inverse(norm: jax.Array) -> jax.Array:
    """`1 / norm`; 1 of a norm of zero, so that what has it stays zero, with a derivative."""
    return 1 / jnp.where(norm > 0, divisible(norm), 1)


def vector_norm(x: jax.Array) -> jax.Array:
    """The Euclidean norm of one short vector, divided by its largest entry first."""
    largest = jnp.max(jnp.abs(x), initial=0)
    divisor = divisible(jax.lax.stop_gradient(largest))  # any would do
    norm = divisor * root(sum_squares(x / divisor))
    return jnp.minimum(norm, jnp.finfo(x.dtype).max)


def whole_norm(own: jax.Array, given: Any = None) -> jax.Array:
    """The norm `given` where it is a finite number, else `own`."""
    if given is None:
        return own
    given = jnp.asarray(given).astype(own.dtype)
    return jnp.where(jnp.isfinite(given), given, own)


def some(t: Tree) -> jax.Array:
    """Whether any entry of any leaf is true."""
    return functools.reduce(
        operator.or_, map(jnp.any, jax.tree.leaves(t)), jnp.array(False)
    )


def paths(t: Tree, is_leaf: Callable[[Any], bool] | None = None) -> list[str]:
    """Each leaf's path as names joined by `/`, the same for dicts, linen, NNX and dataclasses.

    An NNX variable, which is around an array in init only, has no name of its own in it.
    """
    held = {
        keys
        for keys, x in tree_leaves_with_path(t, is_leaf=is_variable)
        if is_variable(x)
    }

    def path(keys: tuple[Any, ...]) -> str:
        within = (i for i in range(len(keys)) if keys[:i] in held)
        i = next(within, len(keys))
        return keystr(keys[:i] + keys[i + 1 :], simple=True, separator="/")

    return [path(keys) for keys, _ in tree_leaves_with_path(t, is_leaf=is_leaf)]


def unzip(t: Tree, tuples: Tree, count: int) -> tuple[Tree, ...]:
    """Trees like `t`, one of each part of the tuples that stand in the place of its leaves."""
    part = lambda i: jax.tree.map(lambda _, parts: parts[i], t, tuples)
    return tuple(part(i) for i in range(count))


def bare(t: Tree) -> Tree:
    """`t`, without the boxes in which Flax keeps arrays and says how these are sharded.

    What has another shape is kept in such a tree, as that sharding is not its own. NNX takes its
    boxes off before an update by itself, linen does not.
    """

    def leaf(x: Any) -> Any:
        held = jax.tree.leaves(x) if is_box(x) else ()
        return held[0] if len(held) == 1 else x

    return jax.tree.map(leaf, t, is_leaf=is_box)


def boxed(t: Tree, like: Tree) -> Tree:
    """`t`, in the boxes that `like` has."""
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(t))


def map_bare(f: Callable[..., Any], t: Tree, *rest: Tree) -> Tree:
    """`jax.tree.map`, where only some of these trees have boxes; the result has those of `t`."""
    return boxed(jax.tree.map(f, *map(bare, (t, *rest))), t)


def is_box(x: Any) -> bool:
    """Whether this is a variable of an NNX module, or a parameter of linen with its sharding."""
    return is_variable(x) or hasattr(x, "unbox")


def is_variable(x: Any) -> bool:
    """Whether this is a variable of an NNX module."""
    return hasattr(x, "get_metadata")


def map_with_path(f: Callable[..., Any], t: Tree, *rest: Tree) -> Tree:
    """`jax.tree.map` with each leaf's path as the first argument."""
    names = iter(paths(t))
    return jax.tree.map(lambda *xs: f(next(names), *xs), t, *rest)
