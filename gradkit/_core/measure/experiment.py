"""An experiment to repeat at several sizes: a model, its loss, its optimizer and its data."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

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


def keys(seeds: int) -> jax.Array:
    """One key per seed, the same for every size and learning rate."""
    return jax.vmap(jax.random.key)(jnp.arange(seeds))
