"""Law 28."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradkit.testing._compare import attempt, kind, leaves, require
from gradkit.testing._law import law
from gradkit.testing._subject import Subject


class Mapped:
    """The image of a leaf of a state: the name of the parameter it belongs to, or None."""

    def __init__(self, name: str | None):
        self.name = name


@law(28)
def tree_map_params(s: Subject) -> None:
    """`optax.tree_map_params` reaches all that a state keeps in the shape of a parameter.

    Places without an array are a `MaskedNode`, which `is_leaf` finds. Where this does not hold,
    nobody can derive from those of the parameters how a state is sharded, cast or offloaded.
    """
    params = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in s.shapes.items()}
    state = jax.eval_shape(s.tx.init, params)
    with attempt("optax.tree_map_params"):
        mapped = optax.tree_map_params(
            s.tx,
            name_of,
            state,
            {k: k for k in params},
            transform_non_params=lambda _: Mapped(None),
            is_leaf=is_masked,
        )
    due, got = jax.tree.structure(state), jax.tree.structure(mapped)
    require(due == got, f"the state mapped must have structure {due}, got {got}")
    matrices = [p for p in params.values() if p.ndim > 1]
    for (path, x), found in zip(leaves(state).items(), jax.tree.leaves(mapped)):
        whole = x.ndim > 1 and any(x.size == p.size for p in matrices)
        require(
            found.name or not whole,
            f"leaf {path!r} of the state must be reached, as it has all entries of a "
            f"parameter, {kind(x)}; keep what belongs to a parameter in a tree like these",
        )


def is_masked(x: Any) -> bool:
    """Whether this is a place without an array."""
    return isinstance(x, optax.MaskedNode)


def name_of(x: Any, name: str) -> Any:
    """Map a leaf that was reached to the name of its parameter."""
    return x if is_masked(x) else Mapped(name)
