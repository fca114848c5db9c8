"""Law 3."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit.testing._compare import attempt, same_kinds
from gradkit.testing._law import law
from gradkit.testing._subject import Subject

PAIRS = [
    (jnp.float32, jnp.float32),
    (jnp.bfloat16, jnp.float32),
    (jnp.float32, jnp.bfloat16),
    (jnp.bfloat16, jnp.bfloat16),
    (jnp.float16, jnp.float16),
]


@law(3)
def fixed_point(s: Subject) -> None:
    """The state keeps its shapes and dtypes; updates have those of gradients, or of parameters.

    Where this does not hold, mixed precision compiles twice, fails in `lax.scan`, or grows.
    """
    for of_params, of_grads in PAIRS:
        when = f"with {of_params.__name__} parameters, {of_grads.__name__} gradients"
        params, grads = kinds(s.params, of_params), kinds(s.grads(0), of_grads)
        with attempt(f"an update {when}"):
            state = jax.eval_shape(s.tx.init, params)
            updates, new = jax.eval_shape(s.update, grads, state, params)
        same_kinds(f"the state {when}", new, state)
        dtypes = lambda t: [x.dtype for x in jax.tree.leaves(t)]
        rounded = dtypes(updates) == dtypes(params)
        same_kinds(f"the update {when}", updates, params if rounded else grads)


def kinds(tree: Any, dtype: Any) -> Any:
    """The shapes of a tree, in another dtype."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), tree)
