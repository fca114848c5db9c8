"""The state of averages of parameters, and `eval_params`, which reads the average from it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers
from gradkit._core.call import error
from gradkit._core.numbers import Tree
from gradkit._core.paths import leaf_paths, unboxed


class AverageState(NamedTuple):
    """State of every `average_params_by_`, the type that `eval_params` looks for."""

    count: jax.Array  # updates so far, int32 []
    average: Tree  # of parameters after updates, a tree like them; zeros at first


def after(params: Tree, updates: Tree) -> Tree:
    """Parameters after the update, in at least float32; non-finite updates count as zero."""

    def leaf(p: jax.Array, u: jax.Array) -> jax.Array:
        wide = numbers.wide_dtype(p)
        moved = p.astype(wide) + numbers.without_nan(u).astype(wide)
        return moved.astype(p.dtype).astype(wide)  # as `optax.apply_updates` rounds it

    return jax.tree.map(leaf, params, updates)


def toward(average: Tree, new: Tree, weight: Any) -> Tree:
    """`(1 - weight) * average + weight * new`, leaf by leaf: exactly `new` at weight 1."""

    def leaf(x: jax.Array, y: jax.Array) -> jax.Array:
        w = jnp.asarray(weight).astype(x.dtype)
        return (1 - w) * x + w * y.astype(x.dtype)

    return jax.tree.map(leaf, average, new)


def eval_params(state: optax.OptState, params: Tree) -> Tree:
    """Return the average of the parameters that a state keeps, to evaluate the model with.

    The `average_params_by_` may be anywhere: in a chain, in `route`, `optax.masked`,
    `optax.partition`, or a wrapper such as `accumulate` or a `store_by_`. Groups of parameters may
    each have one.

    Args:
        state: the state of a transform that contains an `average_params_by_`.
        params: the parameters of the run. The average has their structure and dtypes. A leaf that
            is not averaged is returned as given here, as is every leaf before the first update.

    Raises an error if the state has no average, two averages of one leaf, or an average of other
    parameters.

    >>> tx = gk.chain(gk.sgd(1.0), gk.average_params_by_polynomial(0.0))
    >>> p, state = jnp.float32(0.0), tx.init(jnp.float32(0.0))
    >>> for _ in range(3): u, state = tx.update(jnp.float32(-1.0), state, p); p = p + u
    >>> print(gk.eval_params(state, p))  # the mean of 1, 2 and 3
    2.0
    """
    check.live("eval_params", state)
    states = _averages_of(state)
    if not states:
        remedy = "Put gradkit.average_params_by_ema() last in the chain."
        raise _wrong("state must have an average of parameters, got none", remedy)
    averages: dict[str, tuple[jax.Array, jax.Array]] = {}
    for count, average in map(unboxed, states):
        for path, x in zip(leaf_paths(average), jax.tree.leaves(average)):
            if path in averages:
                remedy = "Keep one, or give the state of one of them."
                raise _wrong(f"leaf {path} must have one average, got two", remedy)
            averages[path] = count, x

    shapes = dict(zip(leaf_paths(params), map(jnp.shape, jax.tree.leaves(params))))
    for path, (_, x) in averages.items():
        if shapes.get(path) != x.shape:
            got = f"shape {shapes[path]}" if path in shapes else "no such leaf"
            leaf = f"leaf {path}, of which the state has an average of shape {x.shape}"
            remedy = "Give the parameters of this state; average outside of a view."
            raise _wrong(f"params must have {leaf}, got {got}", remedy)

    def averaged(path: str, p: Any) -> Any:
        if path not in averages:
            return p
        count, x = averages[path]
        return jnp.where(count > 0, numbers.on_device(x).astype(p.dtype), p)

    leaves, structure = jax.tree.flatten(params)
    return structure.unflatten(map(averaged, leaf_paths(params), leaves))


def evaluated(state: optax.OptState, params: Tree) -> Tree:
    """What a run is judged by: `eval_params` where the state keeps an average, else `params`."""
    return eval_params(state, params) if _averages_of(state) else params


def _averages_of(state: optax.OptState) -> list[AverageState]:
    is_average = lambda x: isinstance(x, AverageState)
    found = [x for x in jax.tree.leaves(state, is_leaf=is_average) if is_average(x)]
    return [
        x for x in found if jax.tree.leaves(x.count)
    ]  # a tree like one, of scales, is none


def _wrong(requirement: str, remedy: str) -> Exception:
    return error(ValueError, "eval_params", f"{requirement}. {remedy}")
