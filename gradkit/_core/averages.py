"""Averages of parameters that a state keeps, and how they are read from it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import numbers
from gradkit._core.call import error
from gradkit._core.numbers import Tree
from gradkit._core.paths import leaf_paths, unboxed


class AverageState(NamedTuple):
    """What `eval_params` finds."""

    count: jax.Array  # updates so far, int32 []
    average: Tree  # of the parameters after them, like the parameters; at first zeros


def after(params: Tree, updates: Tree) -> Tree:
    """The parameters after the update, in at least float32; what is not finite moves none."""

    def leaf(p: jax.Array, u: jax.Array) -> jax.Array:
        wide = numbers.wide_dtype(p)
        moved = p.astype(wide) + numbers.without_nan(u).astype(wide)
        return moved.astype(p.dtype).astype(wide)  # as `optax.apply_updates` rounds it

    return jax.tree.map(leaf, params, updates)


def toward(average: Tree, new: Tree, weight: Any) -> Tree:
    """`average + weight * (new - average)`, leaf by leaf, without what was there where it is 1."""

    def leaf(x: jax.Array, y: jax.Array) -> jax.Array:
        w = jnp.asarray(weight).astype(x.dtype)
        return (1 - w) * x + w * y.astype(x.dtype)

    return jax.tree.map(leaf, average, new)


def eval_params(state: optax.OptState, params: Tree) -> Tree:
    """The average of the parameters that a state keeps, to be evaluated in their place.

    It is found wherever an `average_params_by_` stands: in a chain, in `route`, `optax.masked`,
    `optax.partition`, or a wrapper such as `accumulate`. Groups of parameters may each have one.

    Args:
        state: of a transform one of whose parts is an `average_params_by_`.
        params: the parameters of the run. The average has their structure and dtypes; a leaf that
            is not averaged, and every leaf before the first update, is the one given here.

    Raises an error that says so if the state has no average, if it has two of one leaf, or one
    that is not of these parameters.

    >>> tx = gk.chain(gk.sgd(1.0), gk.average_params_by_polynomial(0.0))
    >>> p, state = jnp.float32(0.0), tx.init(jnp.float32(0.0))
    >>> for _ in range(3): u, state = tx.update(jnp.float32(-1.0), state, p); p = p + u
    >>> print(gk.eval_params(state, p))  # the mean of 1, 2 and 3
    2.0
    """
    is_average = lambda x: isinstance(x, AverageState)
    found = [x for x in jax.tree.leaves(state, is_leaf=is_average) if is_average(x)]
    if not found:
        remedy = "Put gradkit.average_params_by_ema() last in the chain."
        raise _wrong("state must have an average of parameters, got none", remedy)
    kept: dict[str, tuple[jax.Array, jax.Array]] = {}
    for count, average in map(unboxed, found):
        for path, x in zip(leaf_paths(average), jax.tree.leaves(average)):
            if path in kept:
                remedy = "Keep one, or give the state of one of them."
                raise _wrong(f"leaf {path} must have one average, got two", remedy)
            kept[path] = count, x

    shapes = dict(zip(leaf_paths(params), map(jnp.shape, jax.tree.leaves(params))))
    for path, (_, x) in kept.items():
        if shapes.get(path) != x.shape:
            got = f"shape {shapes[path]}" if path in shapes else "no such leaf"
            what = f"leaf {path}, of which the state has an average of shape {x.shape}"
            remedy = "Give the parameters of this state; average outside of a view."
            raise _wrong(f"params must have {what}, got {got}", remedy)

    def leaf(path: str, p: Any) -> Any:
        if path not in kept:
            return p
        count, x = kept[path]
        return jnp.where(count > 0, x.astype(p.dtype), p)

    leaves, structure = jax.tree.flatten(params)
    return structure.unflatten(map(leaf, leaf_paths(params), leaves))


def _wrong(what: str, remedy: str) -> Exception:
    return error(ValueError, "eval_params", f"{what}. {remedy}")
