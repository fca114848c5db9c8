"""The shapes that flow, and the one way a pair of pure functions becomes a transform."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradkit._core import check, tree

Params = Any  # a pytree of real arrays
Updates = Any  # a pytree like Params: gradients, directions, or updates
Extra = Any  # keyword arguments of `update` that a method does not know
Scalar = float | jax.Array  # a number, which may be traced
Schedule = Callable[[jax.Array], Scalar]  # updates made so far -> a number
Rate = Scalar | Schedule
Transform = optax.GradientTransformationExtraArgs
AnyTransform = optax.GradientTransformation  # what a wrapper takes: optax's or ours


def transform(
    init: Callable[[Params], Any], update: Callable[..., tuple[Updates, Any]]
) -> Transform:
    """Pair `init` and `update`, and check every leaf either of them is given.

    The name in error messages is the name of the factory that defines `init`.
    """
    name = init.__qualname__.partition(".")[0]

    def checked_init(params: Params) -> Any:
        check.real(name, params)
        return init(_of_jax(params))

    def checked_update(updates: Updates, state: Any, params: Params = None, **extra):
        check.real(name, updates)
        if params is not None:
            check.alike(name, updates, params)
        given = _of_jax(updates)
        if not extra.get("unrounded"):  # else the chain around this one has done so
            given = tree.opaque(given)
        return update(given, state, _of_jax(params), **extra)

    return cast(Transform, Transform(checked_init, checked_update))


def _of_jax(t: Any) -> Any:
    """`t`, with NumPy's leaves as JAX takes them: in float32 where float64 is off."""
    if not any(isinstance(x, np.ndarray) for x in jax.tree.leaves(t)):
        return t
    return jax.tree.map(jnp.asarray, t)


def stateless(update: Callable[..., Updates]) -> Transform:
    """A transform without memory from `update(updates, params, **extra) -> updates`."""

    def init(params: Params) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def step(updates: Updates, state: Any, params: Params = None, **extra):
        return update(updates, params, **extra), state

    init.__qualname__ = update.__qualname__
    return transform(init, step)
