"""Law 17."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit.testing._compare import attempt, same
from gradkit.testing._law import law
from gradkit.testing._laws.composition import ROUNDED
from gradkit.testing._program import Program
from gradkit.testing._subject import Subject

SHARE = 0.9  # what every hyperparameter changes to, of its value


@law(17)
def live_hyperparameters(s: Subject) -> None:
    """Every float hyperparameter may be a traced argument of the step, and change.

    Where this does not hold, each new learning rate compiles the whole training step anew.
    """

    def update(hyper: Any, grads: Any, state: Any) -> Any:
        return s.make(**hyper).update(grads, state, s.params, **s.extra)[0]

    if not s.hyper:
        return
    grads, state = s.grads(1), s.run.states[1]
    traced = {k: jnp.float32(v) for k, v in s.hyper.items()}
    for name in traced:
        with attempt(f"an update with {name} traced"):
            jax.eval_shape(update, {name: traced[name]}, grads, state)
    program = Program(update, traced, grads, state)
    what = "the update with all hyperparameters traced"
    same(what, program(traced, grads, state), s.run.updates[1], tolerance=ROUNDED)
    changed = {k: SHARE * v for k, v in s.hyper.items()}
    updates = program({k: jnp.float32(v) for k, v in changed.items()}, grads, state)
    fixed = Program(lambda g, state: update(changed, g, state), grads, state)
    what = f"the same program with each hyperparameter at {SHARE:g} of its value"
    same(what, updates, fixed(grads, state), tolerance=ROUNDED)
