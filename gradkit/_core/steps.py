"""Updates that are made under a condition: where it does not hold, nothing moves."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr

from gradkit._core import condition, numbers
from gradkit._core.numbers import Tree

Update = Callable[[Any], tuple[Tree, Any]]  # state -> (updates, state)


class Traced(NamedTuple):
    """An update as a program of the state, and zeros like the updates that it returns."""

    program: Any
    structure: Any  # of what it returns
    zero: Tree

    def run(self, state: Any) -> list[jax.Array]:
        """The leaves of what it returns."""
        leaves = jax.tree.leaves(state)
        return eval_jaxpr(self.program.jaxpr, self.program.consts, *leaves)


def rarely(due: jax.Array, update: Update, updates: Tree, state: Any) -> Any:
    """`update(state)` where `due`, else zeros and the same state.

    What is not due is not computed, under `vmap` too: see `condition.when`. `updates` are those
    that `update` is about, of whose shapes its result is.
    """
    traced = _traced(update, updates, state)
    step = lambda x: traced.structure.unflatten(traced.run(x[1]))
    return condition.when(due, step, (traced.zero, state))


def mostly(due: jax.Array, update: Update, updates: Tree, state: Any) -> Any:
    """`update(state)` where `due`, else zeros and the same state.

    An XLA conditional, which under `vmap` becomes a selection: a loop, or a selection of all that
    is remembered, costs more where nearly every update is due.
    """
    traced, align = _traced(update, updates, state), condition.on_axes_of
    still, structure = jax.tree.flatten((traced.zero, state))
    made = traced.program.out_avals
    still = [align(align(x, y), due) for x, y in zip(still, made)]
    move = lambda: [align(y, x) for y, x in zip(traced.run(state), still)]
    return structure.unflatten(jax.lax.cond(due, move, lambda: still))


def _traced(update: Update, updates: Tree, state: Any) -> Traced:
    program, kinds = jax.make_jaxpr(update, return_shape=True)(state)

    def zero(g: Any, kind: Any) -> Any:
        return jnp.zeros_like(g, dtype=kind.dtype)

    zeros = jax.tree.map(zero, updates, kinds[0])
    return Traced(program, jax.tree.structure(kinds), zeros)


def all_finite(t: Tree) -> jax.Array:
    """Whether every entry of every leaf of real or complex numbers is finite."""
    trained = [x for x in jax.tree.leaves(t) if numbers.is_trained(x)]
    each = [jnp.all(jnp.isfinite(x)) for x in trained]
    return jnp.all(jnp.stack(each)) if each else jnp.array(True)
