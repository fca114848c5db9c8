"""An experiment to repeat at several sizes: a model, its loss, its optimizer and its data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import numbers
from gradkit._core.call import error, refusal
from gradkit._core.measure.loss import real
from gradkit._core.types import AnyTransform, Params

Batch = Any  # second argument of the loss


class Experiment(NamedTuple):
    """One model of one size, ready to train; all four functions are pure."""

    init: Callable[[jax.Array], Params]  # key -> first parameters
    loss: Callable[[Params, Batch], jax.Array]  # a number
    tx: Callable[[jax.Array], AnyTransform]  # learning rate -> transform
    batch: Callable[[jax.Array], Batch]  # key -> the batch it draws


Make = Callable[[int], Experiment]  # from a size


def train(
    experiment: Experiment, tx: AnyTransform, params: Params, opt: Any, batch: Batch
) -> tuple[Params, Any, jax.Array]:
    """One training step: next parameters, next optimizer state, and the loss before the step."""
    loss, grads = jax.value_and_grad(experiment.loss)(params, batch)
    tx = optax.with_extra_args_support(tx)
    updates, opt = tx.update(grads, opt, params, value=loss)
    return optax.apply_updates(params, updates), opt, loss


def check_functions(method: str, **functions: tuple[Any, str]) -> None:
    """Check that each is a function of the arguments that are named beside it."""
    for name, (function, arguments) in functions.items():
        got = None
        if not callable(function):
            got = type(function).__name__
        elif wrong := refusal(function, *arguments.split(", ")):
            got = f"one that does not take them: {wrong}"
        if got is not None:
            must = f"{name} must be a function of {arguments}"
            remedy = f"Write lambda {arguments}: ..., say."
            raise error(TypeError, method, f"{must}, got {got}. {remedy}")


def check_trained(method: str, name: str, init: Callable[[jax.Array], Params]) -> None:
    """Check that what `init` returns are arrays that have gradients; nothing is computed."""
    found = []
    jax.eval_shape(lambda key: found.append(init(key)), jax.random.key(0))
    check_arrays(method, f"what {name} returns", found[0])


def check_arrays(method: str, name: str, params: Params) -> None:
    """Check that parameters are arrays that have gradients; complex ones do."""
    if not all(map(numbers.is_trained, jax.tree.leaves(params))):
        real(method, params, name)


def keys(seeds: int) -> jax.Array:
    """One key per seed, the same for every size and learning rate."""
    return jax.vmap(jax.random.key)(jnp.arange(seeds))
