"""Arithmetic on whole trees of arrays, leaf by leaf."""

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradkit._core import condition, numbers
from gradkit._core.derivative import hypot
from gradkit._core.numbers import Tree


def by_shape(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, jitted in a compiled update, so that arguments of equal shapes share one trace."""
    return jax.jit(f) if numbers.is_compiled() else f


def map_by_shape(f: Callable[..., Any], t: Tree, *trees: Tree) -> Tree:
    """`jax.tree.map` of `by_shape(f)`: leaves of equal shapes share one trace."""
    return jax.tree.map(by_shape(f), t, *trees)


def is_masked(x: Any) -> bool:
    """Whether a place in a tree has no array."""
    return isinstance(x, optax.MaskedNode)


def zeros(t: Tree) -> Tree:
    """Zeros shaped like `t`, in at least float32: the start of every EMA."""
    return jax.tree.map(lambda x: jnp.zeros_like(x, dtype=numbers.wide_dtype(x)), t)


def zero_per_leaf(t: Tree) -> jax.Array:
    """A vector of zeros `[leaves]`, in the widest dtype of `t`, at least float32."""
    dtypes = [numbers.wide_dtype(x) for x in jax.tree.leaves(t)]
    widest = max(dtypes, key=lambda d: d.itemsize, default=jnp.dtype(jnp.float32))
    return condition.varying_as(jnp.zeros(len(dtypes), widest), t)


def ema(decay: Any, old: Tree, new: Tree) -> Tree:
    """`decay * old + (1 - decay) * new`, kept in `old`'s dtype."""

    def leaf(o: jax.Array, n: jax.Array) -> jax.Array:
        return (decay * o + (1 - decay) * n.astype(o.dtype)).astype(o.dtype)

    return jax.tree.map(leaf, old, new)


def ema_before(decay: Any, b: Any, old: Tree, mu: Tree, new: Tree) -> Tree:
    """`ema(decay, old, new)`, computed from `mu = ema(b, old, new)` where that is as exact.

    An array that two kernels read and one of them overwrites is copied by XLA on a CPU: a third
    of Lion's time. If only the new momentum is read, the old one is overwritten in place.
    """
    is_number = isinstance(decay, float | int) and isinstance(b, float | int)
    if is_number and 0 < decay <= b:
        return ema(decay / b, mu, new)
    return ema(decay, old, new)


def after(t: Tree, *readers: Tree) -> Tree:
    """`t`, computed after `readers`, arrays without nan that read what `t` will overwrite.

    Without an order XLA on a CPU copies what is overwritten, in one thread. It sees through a
    barrier, but not through the question whether an entry of `readers` is nan.
    """

    def leaf(x: jax.Array, *ys: jax.Array) -> jax.Array:
        undone = functools.reduce(operator.or_, map(jnp.isnan, ys))
        return jnp.where(undone, 0, x)

    return jax.tree.map(leaf, t, *readers)


def ema_of_squares(decay: Any, old: Tree, new: Tree) -> Tree:
    """`decay * old + (1 - decay) * new^2`, kept in `old`'s dtype."""
    return ema(decay, old, jax.tree.map(jnp.square, new))


def ema_rms(decay: Any, old: Tree, new: Tree) -> Tree:
    """The root of `decay * old^2 + (1 - decay) * new^2`, kept in `old`'s dtype.

    `hypot` squares nothing, so entries of 1e25 stay finite, and entries of 1e-30 above zero.
    """

    def leaf(o: jax.Array, n: jax.Array) -> jax.Array:
        # clipped before and not after: XLA would compute a clipped result again where it is read
        most = jnp.finfo(o.dtype).max * (1 - 2.0**-10)
        o, n = (jnp.clip(x, -most, most) for x in (o, n.astype(o.dtype)))
        return hypot(decay**0.5 * o, (1 - decay) ** 0.5 * n).astype(o.dtype)

    return jax.tree.map(leaf, old, new)


def bias_corrected(average: Tree, decay: Any, step: jax.Array) -> Tree:
    """`average / (1 - decay^step)`, the bias correction of an EMA that began at zero."""
    weights = one_minus_powers(decay, step, average)
    return jax.tree.map(lambda x: x / weights[x.dtype], average)


def bias_corrected_rms(root: Tree, decay: Any, step: jax.Array) -> Tree:
    """`root / sqrt(1 - decay^step)`, the bias-corrected root of an EMA of squares."""
    return jax.tree.map(
        lambda x: x / jnp.sqrt(numbers.one_minus_power(decay, step, x.dtype)), root
    )


def over_root(numerator: jax.Array, root: jax.Array, floor: Any) -> jax.Array:
    """`numerator / (root + floor)`, or 0 where `root + floor` is 0."""
    is_number = isinstance(floor, float | int)
    if is_number and floor >= jnp.finfo(numerator.dtype).tiny:
        return numerator / (root + floor)
    return ratio(numerator, root + floor)


def ratio(numerator: Tree, denominator: Tree) -> Tree:
    """`numerator / denominator`, leaf by leaf, or 0 where the denominator is 0."""

    def leaf(n: jax.Array, d: jax.Array) -> jax.Array:
        is_zero = d == 0
        return jnp.where(is_zero, 0, n / jnp.where(is_zero, 1, d))

    return jax.tree.map(leaf, numerator, denominator)


def one_minus_powers(decay: Any, step: jax.Array, t: Tree) -> dict[Any, jax.Array]:
    """`1 - decay^step` in each dtype of `t`, as a dict by dtype."""
    dtypes = {x.dtype: None for x in jax.tree.leaves(t)}
    return {d: numbers.one_minus_power(decay, step, d) for d in dtypes}


def scale(a: Any, x: Tree) -> Tree:
    """`a * x`, each leaf in its own dtype."""
    return jax.tree.map(lambda xi: (a * xi).astype(xi.dtype), x)


def scale_each(a: jax.Array, x: Tree) -> Tree:
    """Leaf `i` of `x` times `a[i]`, each leaf in its own dtype."""
    leaves, structure = jax.tree.flatten(x)
    scaled = [(ai.astype(xi.dtype) * xi) for ai, xi in zip(entries(a), leaves)]
    return structure.unflatten(scaled)


def entries(a: jax.Array) -> list[jax.Array]:
    """The list `[a[0], a[1], ...]` along the first axis.

    On a CPU the indices are hidden from XLA. Leaves of one shape then share one kernel; with
    constant indices each leaf has its own kernel, and compilation takes twenty times as long.
    """
    if jax.default_backend() != "cpu":
        return list(a)
    at = functools.partial(jax.lax.dynamic_index_in_dim, a, keepdims=False)
    return [at(i, allow_negative_indices=False) for i in unknown(range(len(a)))]


def unknown(places: Iterable[int]) -> list[jax.Array]:
    """These integers as int32 arrays whose values XLA does not know at compile time."""
    values = [np.int32(place) for place in places]
    return jax.lax.cond(
        jax.lax.optimization_barrier(np.array(False)),
        lambda: [np.int32(0) for _ in values],
        lambda: values,
    )


def dot(x: Tree, y: Tree) -> jax.Array:
    """The inner product of two trees, in the widest dtype of `x`; 0 if empty."""
    total = zero_per_leaf(x)
    products = jax.tree.map(lambda a, b: jnp.sum(a * b).astype(total.dtype), x, y)
    return jnp.sum(jnp.stack(jax.tree.leaves(products)) if total.size else total)


def any_true(t: Tree) -> jax.Array:
    """Whether any entry of any leaf is true."""
    return functools.reduce(
        operator.or_, map(jnp.any, jax.tree.leaves(t)), jnp.array(False)
    )


def unzip(t: Tree, tuples: Tree, count: int) -> tuple[Tree, ...]:
    """Split `tuples`, like `t` with a tuple at each leaf, into `count` trees, one per element."""
    part = lambda i: jax.tree.map(lambda _, parts: parts[i], t, tuples)
    return tuple(part(i) for i in range(count))
