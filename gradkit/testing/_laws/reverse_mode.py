"""Law 30."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradkit.testing._compare import finite, require
from gradkit.testing._devices import stack
from gradkit.testing._law import law
from gradkit.testing._program import Program
from gradkit.testing._stated import docstring, name
from gradkit.testing._subject import STEPS, Subject

SAID = "cannot be differentiated"


@law(30)
def reverse_mode(s: Subject) -> None:
    """The derivative through three updates is finite, also where gradients or entries are zero.

    By gradients, parameters and float hyperparameters. Where this does not hold, no learning rate,
    loss or data can be learned through training. A transform without one says in its docstring
    that it "cannot be differentiated", and raises a TypeError that begins `gradkit.<its name>`.
    """
    hyper = {k: jnp.float32(v) for k, v in s.hyper.items()}
    drawn = stack([s.grads(t) for t in range(STEPS)])
    said = SAID in docstring(s)
    try:
        derivative = Program(jax.grad(ends(s), (0, 1, 2)), hyper, drawn, s.params)
    except TypeError as error:
        if said and str(error).startswith(f"gradkit.{name(s)}: "):
            return
        raise
    require(not said, f"the docstring must not say {SAID!r}, as there is a derivative")
    zero, first = jax.tree.map(jnp.zeros_like, drawn), next(iter(drawn))
    one = {**drawn, first: zero[first]}
    sparse = {k: np.array(g) for k, g in drawn.items()}
    for g in sparse.values():
        g[:, *[0] * (g.ndim - 1)] = 0
    cases = {
        "drawn": drawn,
        "zero": zero,
        f"drawn, of {first} zero": one,
        "drawn, the first entry of each leaf zero": sparse,
    }
    for what, grads in cases.items():
        by = dict(zip(("hyper", "grads", "params"), derivative(hyper, grads, s.params)))
        finite(f"the derivative where gradients are {what}", by)


def ends(s: Subject) -> Callable[[Any, Any, Any], jax.Array]:
    """(hyperparameters, gradients in turn, parameters) -> a number that all updates move."""

    def end(hyper: Any, grads: Any, params: Any) -> jax.Array:
        tx = s.make(**hyper)

        def step(carry: Any, grads: Any) -> tuple[Any, jax.Array]:
            state, params = carry
            slope = jax.tree.map(
                jnp.multiply, grads, params
            )  # of sum(grads * params^2 / 2)
            updates, state = tx.update(slope, state, params, **s.extra)
            return (state, optax.apply_updates(params, updates)), total(updates)

        (_, params), moves = jax.lax.scan(step, (tx.init(params), params), grads)
        return total(params) + jnp.sum(moves)

    return end


def total(tree: Any) -> jax.Array:
    """The sum of all entries."""
    return jnp.stack([jnp.sum(x) for x in jax.tree.leaves(tree)]).sum()
