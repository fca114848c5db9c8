"""Updates that nobody jits are compiled all the same, once for all factories called alike."""

import functools
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from gradkit._core.call import called, calling
from gradkit._core.types import Params, Transform, Updates

Build = Callable[[Mapping[str, Any]], Any]  # of the arguments by name
PROGRAMS = 256  # compiled updates that are kept


def program(
    made: Transform, build: Build, arguments: Mapping[str, Any]
) -> Callable[..., Any]:
    """The jitted update of the transform `made`, which is what is built of these arguments."""
    arrays = {k: x for k, x in arguments.items() if isinstance(x, jax.Array)}
    rest = [(k, type(x), x) for k, x in arguments.items() if k not in arrays]
    try:
        compiled = _shared(build, tuple(rest))
    except TypeError:  # an argument has no hash: a program for this transform alone
        compiled = _own(made)
    return functools.partial(compiled, arrays)


@functools.lru_cache(PROGRAMS)
def _shared(build: Build, arguments: tuple[tuple[str, type, Any], ...]) -> Any:
    """One update of what is built of these arguments and of others that are arrays."""
    known = {k: x for k, _, x in arguments}
    make = functools.partial(calling, called(""), build, building=True)
    return jax.jit(functools.partial(_update, lambda arrays: make({**known, **arrays})))


@functools.lru_cache(PROGRAMS)
def _own(made: Transform) -> Any:
    """One update of this transform."""
    return jax.jit(functools.partial(_update, lambda _: made))


def _update(
    make: Callable[[Any], Transform],
    arrays: Any,
    updates: Updates,
    state: Any,
    params: Params,
    extra: Mapping[str, Any],
) -> tuple[Updates, Any]:
    tx = optax.with_extra_args_support(make(arrays))
    return tx.update(updates, state, params, **extra)


def is_eager(t: Any) -> bool:
    """Whether all of `t` is known, as a program takes it, and a program may run."""
    config: Any = jax.config
    return not config.jax_disable_jit and all(map(_is_known, jax.tree.leaves(t)))


def _is_known(x: Any) -> bool:
    if isinstance(x, np.ndarray | np.generic):
        return x.dtype != jax.dtypes.float0
    return isinstance(x, jax.Array | Real) and not isinstance(x, Tracer)


def of_jax(t: Any) -> Any:
    """`t`, with the numbers of Python and NumPy as JAX takes them: float64 in float32 unless on."""
    leaves, structure = jax.tree.flatten(t)
    if all(isinstance(x, jax.Array) for x in leaves):
        return t
    return structure.unflatten(map(_leaf, leaves))


def _leaf(x: Any) -> Any:
    if isinstance(x, float) and not isinstance(x, np.generic):
        return jnp.asarray(x, jnp.result_type(float))
    is_numpy = isinstance(x, np.ndarray | np.generic)
    return jnp.asarray(x) if is_numpy and x.dtype != jax.dtypes.float0 else x
