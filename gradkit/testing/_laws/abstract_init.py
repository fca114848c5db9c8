"""Law 5."""

import jax

from gradkit.testing._compare import attempt, same_kinds
from gradkit.testing._law import law
from gradkit.testing._subject import Subject


@law(5)
def abstract_init(s: Subject) -> None:
    """`init` needs no values, only shapes: also those of `jax.ShapeDtypeStruct`.

    Where this does not hold, a checkpoint is restored into a model built twice, in memory twice.
    """
    state = s.tx.init(s.params)
    structs = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), s.params)
    with attempt("init under jax.eval_shape"):
        traced = jax.eval_shape(s.tx.init, structs)
    same_kinds("the state under jax.eval_shape", traced, state)
    with attempt("init from ShapeDtypeStructs"):
        abstract = s.tx.init(structs)
    same_kinds("the state from ShapeDtypeStructs", abstract, state)
