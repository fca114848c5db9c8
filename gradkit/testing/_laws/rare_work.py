"""Law 27."""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax

from gradkit.testing._compare import attempt, require
from gradkit.testing._law import law
from gradkit.testing._program import Program
from gradkit.testing._subject import Subject

CONDITIONS = {"cond", "while"}
FACTORIZATIONS = {
    "cholesky",
    "eig",
    "eigh",
    "geqp3",
    "geqrf",
    "hessenberg",
    "householder_product",
    "lu",
    "qr",
    "schur",
    "svd",
    "triangular_solve",
    "tridiagonal",
    "tridiagonal_solve",
}
CALLS = {"ffi_call", "custom_call", "io_callback", "pure_callback"}
SORTS = {"approx_top_k", "sort", "top_k"}


@law(27)
def rare_work(s: Subject) -> None:
    """Under `jax.vmap` too, expensive operations that are rarely due are computed rarely.

    Of a batch, `lax.cond` computes both branches at every update. Where this does not hold, each
    update of a population, or of a sweep over hyperparameters, factors or sorts every matrix.
    """
    args = s.grads(0), s.state_kinds, s.params
    one = lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype)  # no axis of a product
    with attempt("an update under vmap"):
        batched = Program(jax.vmap(s.update), *jax.tree.map(one, args))
        usual, under_vmap = (always(x.traced.jaxpr) for x in (s.program, batched))
    for name, times in under_vmap.items():
        require(
            times <= usual[name],
            f"an update under vmap must compute {name} {usual[name]} times outside of "
            f"conditions, as without it, got {times}; renew what is rarely due in a "
            "lax.while_loop of at most one step",
        )


def always(program: Any) -> Counter[str]:
    """How often a program computes what takes long outside of all conditions."""
    found: Counter[str] = Counter()
    for eqn in program.eqns:
        name = eqn.primitive.name
        found[name] += takes_long(eqn)
        for inner in called(eqn) if name not in CONDITIONS else ():
            found += always(inner)
    return found


def takes_long(eqn: Any) -> bool:
    """Whether this is a factorization, a sort, a call out of XLA, or a product of matrices."""
    if eqn.primitive.name != "dot_general":
        return eqn.primitive.name in FACTORIZATIONS | CALLS | SORTS
    (summed, _), (batch, _) = eqn.params["dimension_numbers"]
    left, right = (v.aval for v in eqn.invars)
    size = lambda axes: math.prod(left.shape[i] for i in axes)
    free = left.size // size((*summed, *batch)), right.size // size((*summed, *batch))
    return min(size(summed), *free) > 1


def called(eqn: Any) -> Iterator[Any]:
    """The programs within an equation."""
    is_program = lambda x: hasattr(getattr(x, "jaxpr", x), "eqns")
    for x in jax.tree.leaves([*eqn.params.values()], is_leaf=is_program):
        if is_program(x):
            yield getattr(x, "jaxpr", x)
