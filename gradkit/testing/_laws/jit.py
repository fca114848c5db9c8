"""Law 1."""

import jax

from gradkit.testing._compare import attempt, same
from gradkit.testing._law import law
from gradkit.testing._subject import Subject


@law(1)
def jit(s: Subject) -> None:
    """Jitted updates and states are those made without jit.

    Where this does not hold, a run debugged eagerly is not the run that was trained.
    """
    state = s.tx.init(s.params)
    for t, updates in enumerate(s.run.updates[:2]):
        with attempt("an update without jit"), jax.disable_jit():
            eager, state = s.update(s.grads(t), state, s.params)
        same(f"jitted update {t + 1}", updates, eager)
        same(f"jitted state {t + 1}", s.run.states[t + 1], state)
