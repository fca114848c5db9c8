"""Law 3."""

import jax
import jax.numpy as jnp

from gradkit.testing._compare import attempt, same_kinds
from gradkit.testing._law import law
from gradkit.testing._subject import Subject, cast

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
        params, grads = cast(s.params, of_params), cast(s.grads(0), of_grads)
        with attempt(f"an update {when}"):
            state = s.tx.init(params)
            updates, new = jax.eval_shape(s.update, grads, state, params)
        same_kinds(f"the state {when}", new, state)
        dtypes = lambda t: [x.dtype for x in jax.tree.leaves(t)]
        rounded = dtypes(updates) == dtypes(params)
        same_kinds(f"the update {when}", updates, params if rounded else grads)
