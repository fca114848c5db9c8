"""Law 16."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradkit.testing._compare import attempt, same
from gradkit.testing._law import law
from gradkit.testing._program import Program
from gradkit.testing._subject import Subject

ROUNDED = 1e-2  # of a leaf's largest entry: a decay like 0.9999, rounded to float32


@law(16)
def composition(s: Subject) -> None:
    """Inside chain, masked, partition, MultiSteps and inject_hyperparams it does the same.

    Where this does not hold, the transform cannot be combined with those that exist.
    """
    everywhere = {k: True for k in s.params}
    labels = {k: "all" for k in s.params}
    wrapped = {
        "optax.chain": optax.chain(s.tx, optax.identity()),
        "optax.masked": optax.masked(s.tx, everywhere),
        "optax.partition": optax.partition({"all": s.tx}, labels),
    }
    for name, tx in wrapped.items():
        with attempt(f"a traced update in {name}"):
            kinds = jax.eval_shape(tx.init, s.params)
            program = Program(using(s, tx), s.grads(0), kinds, s.params)
            if not program.same_as(s.program):
                args = s.grads(0), tx.init(s.params), s.params
                same(f"the update in {name}", program(*args)[0], s.run.updates[0])
    standard = jax.numpy_dtype_promotion("standard")  # optax averages int and float
    with standard, attempt("a traced update in optax.MultiSteps"):
        steps = optax.MultiSteps(s.tx, 2).gradient_transformation()
        steps = steps._replace(init=jax.jit(steps.init))
        waiting, updates = traced(s, steps, 2)
    zero = jax.tree.map(jnp.zeros_like, s.params)
    same("the first update in optax.MultiSteps", waiting, zero)
    same("the second update in optax.MultiSteps", updates, s.run.updates[0])
    with attempt("a traced update in optax.inject_hyperparams"):
        (updates,) = traced(s, optax.inject_hyperparams(s.factory)(**s.required), 1)
    what = "the update in optax.inject_hyperparams"
    same(what, updates, s.run.updates[0], tolerance=ROUNDED)


def using(s: Subject, tx: Any) -> Callable[..., tuple[Any, Any]]:
    """The update of `tx`, positional arguments only."""
    return lambda grads, state, params: tx.update(grads, state, params, **s.extra)


def traced(s: Subject, tx: Any, steps: int) -> list[Any]:
    """The updates of `tx`, traced, on one gradient again and again."""
    state, out = tx.init(s.params), []
    program = Program(using(s, tx), s.grads(0), state, s.params)
    for _ in range(steps):
        updates, state = program(s.grads(0), state, s.params)
        out.append(updates)
    return out
