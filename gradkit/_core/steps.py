"""Updates made under a condition: where it is false, updates are zero and the state stays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr

from gradkit._core import condition, numbers, report
from gradkit._core.numbers import Tree

Update = Callable[[Any], tuple[Tree, Any]]  # state -> (updates, state)


class Traced(NamedTuple):
    """The jaxpr of an update as a function of the state, and zeros like its updates."""

    program: Any  # a ClosedJaxpr
    structure: Any  # the tree structure of (updates, state)
    zero: Tree

    def run(self, state: Any) -> list[jax.Array]:
        """The leaves of `(updates, state)`."""
        leaves = jax.tree.leaves(state)
        return eval_jaxpr(self.program.jaxpr, self.program.consts, *leaves)


def rarely(due: jax.Array, update: Update, updates: Tree, state: Any) -> Any:
    """`update(state)` where `due`, else zeros and the same state.

    `condition.when` skips `update` where it is not due, under `vmap` too. `updates` are what it
    is given, and its result has their shapes.
    """

    def run(update: Update, state: Any) -> Any:
        traced = _traced(update, updates, state)
        step = lambda x: traced.structure.unflatten(traced.run(x[1]))
        return condition.when(due, step, (traced.zero, state))

    return report.through(update, state, run)


def mostly(due: jax.Array, update: Update, updates: Tree, state: Any) -> Any:
    """`update(state)` where `due`, else zeros and the same state.

    It uses `lax.cond`, which becomes a select under `vmap`. If nearly every update is due, this
    is cheaper than the loop of `rarely`, or a select over all of the state.
    """

    def run(update: Update, state: Any) -> Any:
        traced, align = _traced(update, updates, state), condition.on_axes_of
        still, structure = jax.tree.flatten((traced.zero, state))
        avals = traced.program.out_avals
        still = [align(align(x, y), due) for x, y in zip(still, avals)]
        move = lambda: [align(y, x) for y, x in zip(traced.run(state), still)]
        return structure.unflatten(jax.lax.cond(due, move, lambda: still))

    return report.through(update, state, run)


def _traced(update: Update, updates: Tree, state: Any) -> Traced:
    program, kinds = jax.make_jaxpr(update, return_shape=True)(state)

    def zero(g: Any, kind: Any) -> Any:
        return jnp.zeros_like(g, dtype=kind.dtype)

    zeros = jax.tree.map(zero, updates, kinds[0])
    return Traced(program, jax.tree.structure(kinds), zeros)


def all_finite(t: Tree) -> jax.Array:
    """Whether all entries of all real and complex leaves are finite."""
    trained = [x for x in jax.tree.leaves(t) if numbers.is_trained(x)]
    each = [jnp.all(jnp.isfinite(x)) for x in trained]
    return jnp.all(jnp.stack(each)) if each else jnp.array(True)
