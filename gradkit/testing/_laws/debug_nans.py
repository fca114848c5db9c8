"""Law 29."""

import jax
import jax.numpy as jnp

from gradkit.testing._compare import attempt
from gradkit.testing._law import law
from gradkit.testing._program import Program
from gradkit.testing._subject import Subject


@law(29)
def debug_nans(s: Subject) -> None:
    """Under `jax.debug_nans` and `jax.debug_infs`, updates of zero gradients raise nothing.

    Nor does an empty leaf beside them under `jax.debug_nans`. What each operation returns is looked
    at, as where nothing is jitted. Where this does not hold, a NaN is made and selected away, and
    whoever hunts for the one that spoils a run is stopped here.
    """
    good, state = s.grads(0), s.tx.init(s.params)
    zero = jax.tree.map(jnp.zeros_like, good)
    name = next((k for k, g in good.items() if g.ndim), next(iter(good)))
    one = f"{name} alone"
    run = [("all", zero), (one, {**good, name: zero[name]}), ("all", zero)]
    for t, (where, grads) in enumerate(run, 1):
        what = f"update {t} without jit, the gradient of {where} zero,"
        with attempt(what), jax.debug_nans(True), jax.debug_infs(True):
            _, state = s.program.in_detail(grads, state, s.params)
    empty = {name: jnp.zeros((0, *zero[name].shape[1:]))}
    params, grads = s.params | empty, zero | empty
    with attempt("an update without jit beside an empty leaf"), jax.debug_nans(True):
        args = grads, s.tx.init(params), params
        Program(s.update, *args).in_detail(*args)
