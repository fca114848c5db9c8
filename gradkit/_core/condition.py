"""`when`, a `lax.cond` that skips its branch under `vmap` too, and the axes of a `shard_map`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import AbstractValue, eval_jaxpr

from gradkit._core.versions import vary


def when(due: jax.Array, f: Callable[[Any], Any], x: Any) -> Any:
    """Return `f(x)` where `due`, else `x`; `f` keeps structure, shapes and dtypes.

    A while loop of at most one step replaces `lax.cond`. Under `vmap` a `cond` on a batched
    predicate becomes a select, and `f` runs at every update; the loop runs only if some entry is
    due. XLA also copies the outputs of a `cond` at every update. It copies an array of a loop's
    carry only if it sees that a step returns it unchanged, and a barrier hides this. XLA hoists
    computations on arrays that `f` closes over out of the loop, and then runs them at every
    update. So the step is inside a `cond` whose predicate is true, which a barrier hides.

    In a `shard_map`, `x` may be replicated where `f(x)` varies by device. A while loop has no
    reverse-mode derivative: under differentiation `f` runs at every update.
    """
    xs, structure = jax.tree.flatten(x)
    trace = jax.make_jaxpr(lambda xs: jax.tree.leaves(f(structure.unflatten(xs))))
    traced, axes = trace(xs), [*map(varying, xs)]
    xs = [on_axes_of(on_axes_of(x, y), due) for x, y in zip(xs, traced.out_avals)]
    if [*map(varying, xs)] != axes:
        traced = trace(xs)  # with the axes that the carry varies along

    def step(consts: Sequence[jax.Array], xs: Sequence[jax.Array]) -> list[jax.Array]:
        return eval_jaxpr(traced.jaxpr, consts, *xs)

    @jax.custom_jvp
    def chosen(due: jax.Array, consts: Any, xs: Any) -> Any:
        def done(consts: Any, xs: Any) -> Any:
            return [*map(on_axes_of, step(consts, xs), xs)]

        def body(carry: Any) -> Any:
            always = jax.lax.optimization_barrier(np.array(True))
            ys = jax.lax.cond(always, done, lambda consts, xs: xs, consts, carry[1])
            return ~carry[0], [*map(jax.lax.optimization_barrier, ys)]

        return jax.lax.while_loop(lambda carry: carry[0], body, (due, xs))[1]

    @chosen.defjvp
    def derivative(primals: Any, tangents: Any) -> Any:
        (due, *ins), (_, *changes) = primals, tangents
        select = lambda new, old: new if _is_float0(new) else jnp.where(due, new, old)
        # zero tangents where not due, so that no nan comes back
        due_tangents = jax.tree.map(lambda t: select(t, 0), changes)
        ys, dys = jax.jvp(step, tuple(ins), tuple(due_tangents))
        return [*map(select, ys, ins[1])], [*map(select, dys, changes[1])]

    return structure.unflatten(chosen(due, traced.consts, xs))


def _is_float0(tangent: Any) -> bool:
    """Whether a tangent is `float0`, the tangent of an integer."""
    return tangent.dtype == jax.dtypes.float0


def on_axes_of(x: jax.Array, y: Any) -> jax.Array:
    """`x`, cast to vary along every `shard_map` axis that `y` varies along."""
    if not _is_manual():
        return x
    missing = varying(y) - varying(x)
    return vary(x, tuple(missing)) if missing else x


def _is_manual() -> bool:
    """Whether the caller is traced inside a `shard_map`."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def varying_as(t: Any, data: Any) -> Any:
    """Constants `t`, cast to vary along the `shard_map` axes of `data`, to start a loop's carry."""
    if not _is_manual():
        return t
    arrays = [y for y in jax.tree.leaves(data) if isinstance(y, jax.Array)]
    return jax.tree.map(lambda x: functools.reduce(on_axes_of, arrays, x), t)


def varying(x: Any) -> frozenset[str]:
    """The `shard_map` axes along which the array or type `x` varies."""
    kind: Any = x if isinstance(x, AbstractValue) else jax.typeof(x)
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying
