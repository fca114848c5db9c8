"""Law 21."""

from typing import Any

import jax
import optax

from gradkit.testing._compare import attempt, same
from gradkit.testing._law import law
from gradkit.testing._program import Program
from gradkit.testing._subject import Subject


@law(21)
def partition_norms(s: Subject) -> None:
    """In two groups of `optax.partition`, given the `global_norm` of all, it does the same.

    Where this does not hold, naming a group of parameters silently changes how much is clipped.
    """
    labels = {k: "ab"[i % 2] for i, k in enumerate(s.params)}
    tx = optax.partition({"a": s.tx, "b": s.tx}, labels)
    grads, state = s.grads(0), tx.init(s.params)

    def update(grads: Any, state: Any, norm: jax.Array) -> tuple[Any, Any]:
        return tx.update(grads, state, s.params, global_norm=norm, **s.extra)

    args = grads, state, jax.jit(optax.tree.norm)(grads)
    with attempt("an update in two groups"):
        updates, _ = Program(update, *args)(*args)
    what = "the update in two groups, given the norm of the whole gradient"
    same(what, updates, s.run.updates[0])
