"""Law 13."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit.testing._compare import finite
from gradkit.testing._law import law
from gradkit.testing._program import Program
from gradkit.testing._subject import Subject, cast


@law(13)
def zero_gradient(s: Subject) -> None:
    """A zero gradient gives finite updates and states, in every dtype of training.

    Where this does not hold, one dead unit, masked batch or frozen layer makes the model NaN.
    """
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        params, grads = cast(s.params, dtype), cast(s.grads(0), dtype)
        zero = jax.tree.map(lambda g: jnp.asarray(np.zeros_like(g)), grads)
        state = jax.jit(s.tx.init)(params)
        step = s.step if dtype == jnp.float32 else in_half(s, zero, state, params)
        for t, (g, name) in enumerate([(zero, "zero"), (grads, "a"), (zero, "zero")]):
            updates, state = step(g, state)
            when = f"step {t + 1} ({name} gradient, {dtype.__name__})"
            finite(f"the update of {when}", updates)
            finite(f"the state after {when}", state)


def in_half(s: Subject, grads: Any, state: Any, params: Any) -> Any:
    """(grads, state) -> (updates, state), compiled for half precision."""
    program = Program(s.update, grads, state, params)
    return lambda grads, state: program(grads, state, params)
