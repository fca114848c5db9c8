"""Law 9."""

from typing import Any

import optax

from gradkit.testing._compare import attempt, load
from gradkit.testing._law import law
from gradkit.testing._program import Program, agree
from gradkit.testing._subject import Subject


@law(9)
def linen(s: Subject) -> None:
    """`flax.training.train_state.TrainState` applies the update, under tracing too.

    Where this does not hold, Flax linen's loop cannot use the transform: it passes no extras.
    """
    state = load("flax.training.train_state").TrainState.create(
        apply_fn=None, params=s.params, tx=s.tx
    )

    def apply(grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
        before = state.replace(opt_state=opt_state, params=params)
        after = before.apply_gradients(grads=grads)
        return after.params, after.opt_state

    def plain(grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
        updates, opt_state = s.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    args = s.grads(0), s.run.states[0], s.params
    with attempt("TrainState.apply_gradients"):
        applied = Program(apply, *args)
    what = "the parameters and opt_state of a TrainState"
    agree(what, applied, Program(plain, *args), *args)
