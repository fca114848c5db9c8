"""Law 21."""

import jax
import optax

from gradkit.testing._compare import attempt, same
from gradkit.testing._law import law
from gradkit.testing._subject import Subject


@law(21)
def partition_norms(s: Subject) -> None:
    """In two groups of `optax.partition`, given the `global_norm` of all, it does the same.

    Where this does not hold, naming a group of parameters silently changes how much is clipped.
    """
    labels = {k: "ab"[i % 2] for i, k in enumerate(s.params)}
    tx = optax.partition({"a": s.tx, "b": s.tx}, labels)
    grads, state = s.grads(0), tx.init(s.params)
    extra = {"global_norm": optax.tree.norm(grads), **s.extra}
    with jax.disable_jit(), attempt("an update in two groups"):
        updates, _ = tx.update(grads, state, s.params, **extra)
    what = "the update in two groups, given the norm of the whole gradient"
    same(what, updates, s.run.updates[0])
