"""Law 17."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit.testing._compare import attempt, same
from gradkit.testing._law import law
from gradkit.testing._laws.composition import ROUNDED
from gradkit.testing._program import Program
from gradkit.testing._subject import Subject

SHARES = (1.0, 0.9)  # of every hyperparameter


@law(17)
def live_hyperparameters(s: Subject) -> None:
    """Every float hyperparameter may be a traced argument of the step, and change.

    Where this does not hold, each new learning rate compiles the whole training step anew.
    """

    def update(hyper: Any, grads: Any, state: Any) -> tuple[Any, Any]:
        return s.make(**hyper).update(grads, state, s.params, **s.extra)

    grads, state = s.grads(1), s.run.states[1]
    traced = {k: jnp.float32(v) for k, v in s.hyper.items()}
    for name in traced:
        with attempt(f"an update with {name} traced"):
            Program(update, {name: traced[name]}, grads, state)
    program = Program(update, traced, grads, state)
    for share in SHARES:
        changed = {k: share * v for k, v in s.hyper.items()}
        updates, _ = program(
            {k: jnp.float32(v) for k, v in changed.items()}, grads, state
        )
        with jax.disable_jit():
            fixed, _ = s.make(**changed).update(grads, state, s.params, **s.extra)
        what = f"the update with hyperparameters traced, at {share:g} of their values"
        same(what, updates, fixed, tolerance=ROUNDED)
