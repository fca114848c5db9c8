"""A condition that stays one under JAX's transformations: what is rarely due costs rarely."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import AbstractValue, eval_jaxpr

from gradkit._core.versions import vary


def when(due: jax.Array, f: Callable[[Any], Any], x: Any) -> Any:
    """`f(x)`, of the structure, shapes and dtypes of `x`, where `due`, else `x`.

    A loop of at most one step stands for `lax.cond`. Under `vmap` a condition on a batch becomes
    a selection, and `f` is computed at every update; a loop does nothing where nothing is due.
    And XLA copies what a condition may return, at every update, but of a loop's carry only what
    it sees that a step leaves as it is, which behind the barrier it does not. What a step makes of
    arrays that `f` knows besides `x`, XLA takes out of the loop, to compute it at every update; so
    the step stands in a condition, which is always true, of which XLA does not know.

    `x` may be whole where `f(x)` is the part of one device in a `shard_map`. The loop has no
    gradient of its own: where one is asked for, `f` is computed at every update.
    """
    xs, structure = jax.tree.flatten(x)
    trace = jax.make_jaxpr(lambda xs: jax.tree.leaves(f(structure.unflatten(xs))))
    traced, given = trace(xs), [*map(varying, xs)]
    xs = [on_axes_of(on_axes_of(x, y), due) for x, y in zip(xs, traced.out_avals)]
    if [*map(varying, xs)] != given:
        traced = trace(xs)  # of what varies as the carry will

    def step(known: Sequence[jax.Array], xs: Sequence[jax.Array]) -> list[jax.Array]:
        return eval_jaxpr(traced.jaxpr, known, *xs)

    @jax.custom_jvp
    def chosen(due: jax.Array, known: Any, xs: Any) -> Any:
        def done(known: Any, xs: Any) -> Any:
            return [*map(on_axes_of, step(known, xs), xs)]

        def body(carry: Any) -> Any:
            always = jax.lax.optimization_barrier(np.array(True))
            ys = jax.lax.cond(always, done, lambda known, xs: xs, known, carry[1])
            return ~carry[0], [*map(jax.lax.optimization_barrier, ys)]

        return jax.lax.while_loop(lambda carry: carry[0], body, (due, xs))[1]

    @chosen.defjvp
    def derivative(primals: Any, tangents: Any) -> Any:
        (due, *ins), (_, *changes) = primals, tangents
        select = lambda new, old: new if is_none(new) else jnp.where(due, new, old)
        # zero what is not due, so that no nan comes back
        used = jax.tree.map(lambda t: select(t, 0), changes)
        ys, dys = jax.jvp(step, tuple(ins), tuple(used))
        return [*map(select, ys, ins[1])], [*map(select, dys, changes[1])]

    return structure.unflatten(chosen(due, traced.consts, xs))


def is_none(tangent: Any) -> bool:
    """Whether it is that of an integer, which does not change."""
    return tangent.dtype == jax.dtypes.float0


def on_axes_of(x: jax.Array, y: Any) -> jax.Array:
    """`x` as a part of its own on every device, along the axes of a `shard_map` along which `y` is."""
    if not _is_manual():
        return x
    missing = varying(y) - varying(x)
    return vary(x, tuple(missing)) if missing else x


def _is_manual() -> bool:
    """Whether this is in a `shard_map`."""
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def varying_as(t: Any, data: Any) -> Any:
    """`t`, made of constants, on all axes of a `shard_map` along which `data` is: to be carried."""
    if not _is_manual():
        return t
    arrays = [y for y in jax.tree.leaves(data) if isinstance(y, jax.Array)]
    return jax.tree.map(lambda x: functools.reduce(on_axes_of, arrays, x), t)


def varying(x: Any) -> frozenset[str]:
    """The axes of a `shard_map` along which the array or type `x` differs."""
    kind: Any = x if isinstance(x, AbstractValue) else jax.typeof(x)
    return kind.vma if hasattr(kind, "vma") else kind.manual_axis_type.varying
