"""Law 22."""

from typing import Any

from gradkit.testing._compare import attempt
from gradkit.testing._law import law
from gradkit.testing._program import Program, agree
from gradkit.testing._subject import Subject


@law(22)
def unknown_extras(s: Subject) -> None:
    """Keyword arguments meant for another transform of the chain are ignored.

    Where this does not hold, one transform that needs the loss breaks all of its neighbours.
    """

    def update(grads: Any, state: Any, params: Any) -> tuple[Any, Any]:
        extra = {**s.extra, "meant_for_another": grads}
        return s.tx.update(grads, state, params, **extra)

    args = s.grads(0), s.run.states[0], s.params
    with attempt("an update with an unknown keyword argument"):
        program = Program(update, *args)
    agree("an update with an unknown keyword argument", program, s.program, *args)
