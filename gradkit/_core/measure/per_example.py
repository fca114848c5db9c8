"""Losses and gradients of single examples, a microbatch of them in memory at a time.

A loss takes parameters and a batch, every leaf of which has the examples along its first axis. That of
one example is the loss of a batch of one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, shard, tree
from gradkit._core.measure.loss import one_number, parameters
from gradkit._core.numbers import Tree

Loss = Callable[[Tree, Any], jax.Array]  # of parameters and a batch; a number


class Moments(NamedTuple):
    """The mean and the spread of gradients of examples."""

    count: jax.Array  # of gradients, []
    mean: Tree  # like the parameters, in at least float32
    spread: jax.Array  # sum of |g - mean|^2 over the gradients, [leaves]
    squares: jax.Array  # |g|^2 of each gradient, [count, leaves]


def checked(
    method: str,
    loss: Loss,
    params: Tree,
    batch: Any,
    microbatch: int,
    least: int = 1,
    name: str = "params",
) -> tuple[Any, int]:
    """`batch` as arrays, and its number of examples, of which `least` are needed."""
    check.count(method, microbatch=microbatch)
    parameters(method, params, name)
    batch, examples = counted(method, batch, least)
    one_number(method, loss, params, abstract_of_one(batch))
    return batch, examples


def counted(method: str, batch: Any, least: int = 1) -> tuple[Any, int]:
    """`batch` as arrays, and the number of examples along the first axis of all its leaves.

    What is sharded over Explicit axes of a mesh is gathered, since microbatches cut across them.
    """
    batch = jax.tree.map(lambda x: shard.whole(jnp.asarray(x)), batch)
    shapes = {path: x.shape for path, x in check.leaves(batch)}
    remedy = "Give every leaf the examples along its first axis."
    check.holds(method, bool(shapes), "batch must have arrays", "none", remedy)
    for path, shape in shapes.items():
        name = f"leaf {path} of batch" if path else "batch"
        want = f"{name} must have an axis of examples"
        check.holds(method, len(shape) > 0, want, f"shape {shape}", remedy)
    sizes = {path: shape[0] for path, shape in shapes.items()}
    want = "all leaves of batch must have as many examples"
    check.holds(method, len({*sizes.values()}) == 1, want, sizes, remedy)
    examples = next(iter(sizes.values()))
    some = "one example" if least == 1 else f"{least} examples"
    want, remedy = f"batch must have {some} or more", "Pass a larger one."
    check.holds(method, examples >= least, want, examples, remedy)
    return batch, examples


def of_one(x: Any) -> Any:
    """An example as a batch of one."""
    return jax.tree.map(lambda leaf: leaf[None], x)


def abstract_of_one(batch: Any) -> Any:
    """The shapes and dtypes of a batch of one."""
    one = lambda x: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)
    return jax.tree.map(one, batch)


def loss_of(loss: Loss, params: Tree, batch: Any) -> jax.Array:
    """The loss, in at least float32."""
    value = loss(params, batch)
    return value.astype(numbers.wide_dtype(value))


def each(f: Callable[[Any], Any], batch: Any, microbatch: int) -> Any:
    """`f` of each example of `batch`, stacked; a microbatch is worked at a time."""
    if (
        microbatch >= jax.tree.leaves(batch)[0].shape[0]
    ):  # one program, not a loop's too
        return jax.vmap(f)(batch)
    return jax.lax.map(f, batch, batch_size=microbatch)


def losses(loss: Loss, params: Tree, batch: Any, microbatch: int) -> jax.Array:
    """The loss of each example, `[examples]`, in at least float32."""
    return each(lambda x: loss_of(loss, params, of_one(x)), batch, microbatch)


def gradient(loss: Loss, params: Tree, batch: Any) -> Tree:
    """The gradient of the loss of a batch, in at least float32."""
    return numbers.wide(jax.grad(loss)(params, batch))


def moments(
    loss: Loss, params: Tree, batch: Any, microbatch: int, size: int = 1
) -> Moments:
    """The mean and the spread of the gradients of parts of `size` examples of `batch`, of single ones by default.

    Of a microbatch at a time, by the pairwise update of Chan, Golub and LeVeque: squares of the
    mean and of the gradients are never subtracted.
    """
    count = jax.tree.leaves(batch)[0].shape[0] // size
    at_once = min(max(microbatch // size, 1), count)
    parts = jax.tree.map(lambda x: x.reshape(count, size, *x.shape[1:]), batch)
    dtype = tree.zero_per_leaf(params).dtype

    def of(parts: Any) -> Moments:
        gs = jax.vmap(lambda x: gradient(loss, params, x))(parts)
        mean = jax.tree.map(lambda g: jnp.mean(g, 0), gs)
        from_mean = jax.tree.map(lambda g, m: g - m[None], gs, mean)
        squares = _squares(gs, dtype)
        n = jnp.array(squares.shape[0], dtype)
        return Moments(n, mean, jnp.sum(_squares(from_mean, dtype), 0), squares)

    def and_more(before: Moments, parts: Any) -> tuple[Moments, jax.Array]:
        new = of(parts)
        n = before.count + new.count
        apart = jax.tree.map(jnp.subtract, new.mean, before.mean)
        mean = jax.tree.map(
            lambda m, d: m + (new.count / n).astype(d.dtype) * d, before.mean, apart
        )
        between = _squares(of_one(apart), dtype)[0] * (before.count * new.count / n)
        spread = before.spread + new.spread + between
        return Moments(n, mean, spread, before.squares), new.squares

    whole = count // at_once
    first = jax.tree.map(
        lambda x: x[: whole * at_once].reshape(whole, at_once, *x.shape[1:]), parts
    )
    none = tree.zero_per_leaf(params)
    start = Moments(jnp.zeros([], dtype), tree.zeros(params), none, none[None, :][:0])
    found, squares = jax.lax.scan(and_more, start, first)
    squares = squares.reshape(-1, squares.shape[-1])
    if count % at_once:
        found, last = and_more(
            found, jax.tree.map(lambda x: x[whole * at_once :], parts)
        )
        squares = jnp.concatenate([squares, last])
    return found._replace(squares=squares)


def square(t: Tree) -> jax.Array:
    """The sum of squares of each leaf, `[leaves]`."""
    return _squares(of_one(t), tree.zero_per_leaf(t).dtype)[0]


def nonfinite(squares: jax.Array) -> jax.Array:
    """How many gradients of squares `[count, leaves]` are not finite, or too large to be squared."""
    bad = ~jnp.isfinite(jnp.sum(squares, 1))
    return jnp.sum(bad, dtype=jnp.int32)


def _squares(gs: Tree, dtype: Any) -> jax.Array:
    """Sums of squares of gradients stacked along the first axis, `[count, leaves]`."""
    sums = [
        jnp.sum(jnp.square(g), tuple(range(1, g.ndim))).astype(dtype)
        for g in jax.tree.leaves(gs)
    ]
    return jnp.stack(sums, 1)
