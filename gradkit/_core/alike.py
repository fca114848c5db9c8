"""Items of equal shapes, worked by one program, which does not grow with their number.

An item is a tree of arrays, such as what a method knows of one leaf.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import kinds, tree

Groups = list[list[int]]  # places of items of equal shapes


def groups_of(items: Sequence[Any]) -> Groups:
    """The places of items of which the arrays can be stacked."""

    def kind(item: Any) -> Any:
        leaves, structure = jax.tree.flatten(item)
        shapes = [(x.shape, x.dtype, jax.typeof(x).sharding) for x in leaves]
        return structure, *shapes

    on_cpu = jax.default_backend() == "cpu"
    return kinds.places(map(kind, items), kinds.AT_ONCE if on_cpu else None)


def stacks(groups: Groups, items: Sequence[Any]) -> list[Any]:
    """The items of each group as one, `[items, ...]`."""
    stack = lambda *xs: jnp.stack(xs)
    return [jax.tree.map(stack, *(items[i] for i in group)) for group in groups]


def apart(groups: Groups, stacks: Sequence[Any]) -> list[Any]:
    """The items of stacks, in their order."""
    found: dict[int, Any] = {}
    for group, stack in zip(groups, stacks):
        columns, structure = jax.tree.flatten(stack)
        items = zip(*map(tree.entries, columns)) if columns else [()] * len(group)
        found.update(zip(group, map(structure.unflatten, items)))
    return [found[i] for i in range(len(found))]


def each(f: Callable[..., Any], *stacks: Any) -> Any:
    """`f` of the items of stacks; on a CPU of one after the other, which stays in its cache."""
    if len(jax.tree.leaves(stacks)[0]) == 1:
        y = f(*jax.tree.map(lambda x: x[0], stacks))
        return jax.tree.map(lambda x: x[None], y)
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda items: f(*items), stacks)
    return jax.vmap(f)(*stacks)
