"""Jitted updates for callers who do not jit, cached by factory and arguments."""

import functools
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from gradkit._core import report
from gradkit._core.call import called, calling
from gradkit._core.types import Params, Transform, Updates

Build = Callable[[Mapping[str, Any]], Any]  # arguments by name -> a transform
PROGRAMS = 256  # size of the caches of jitted updates


def program(
    tx: Transform, build: Build, arguments: Mapping[str, Any]
) -> Callable[..., Any]:
    """The jitted update of `tx`, which is `build(arguments)`, as a function of its arguments."""
    arrays = {k: x for k, x in arguments.items() if isinstance(x, jax.Array)}
    static = [(k, type(x), x) for k, x in arguments.items() if k not in arrays]
    try:
        compiled = _shared(build, tuple(static))
    except TypeError:  # an argument has no hash: a program for this transform alone
        compiled = _unshared(tx)
    return functools.partial(compiled, arrays)


@functools.lru_cache(PROGRAMS)
def _shared(build: Build, arguments: tuple[tuple[str, type, Any], ...]) -> Any:
    """A jitted update, shared by all transforms with these static arguments; arrays are traced."""
    fixed = {k: x for k, _, x in arguments}
    make = functools.partial(calling, called(""), build, building=True)
    return jax.jit(functools.partial(_update, lambda arrays: make({**fixed, **arrays})))


@functools.lru_cache(PROGRAMS)
def _unshared(tx: Transform) -> Any:
    """The jitted update of this transform alone."""
    return jax.jit(functools.partial(_update, lambda _: tx))


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
    """Whether every leaf of `t` is concrete and can enter a jitted program, and jit is enabled.

    Not while a `measure` collects: reports cannot leave a program of their own.
    """
    config: Any = jax.config
    if config.jax_disable_jit or report.is_collecting():
        return False
    return all(map(_is_concrete, jax.tree.leaves(t)))


def _is_concrete(x: Any) -> bool:
    if isinstance(x, np.ndarray | np.generic):
        return x.dtype != jax.dtypes.float0
    return isinstance(x, jax.Array | Real) and not isinstance(x, Tracer)


def of_jax(t: Any) -> Any:
    """`t`, with Python floats and NumPy arrays as JAX arrays, float64 as float32 without x64."""
    leaves, structure = jax.tree.flatten(t)
    if all(isinstance(x, jax.Array) for x in leaves):
        return t
    return structure.unflatten(map(_leaf, leaves))


def _leaf(x: Any) -> Any:
    if isinstance(x, float) and not isinstance(x, np.generic):
        return jnp.asarray(x, jnp.result_type(float))
    is_numpy = isinstance(x, np.ndarray | np.generic)
    return jnp.asarray(x) if is_numpy and x.dtype != jax.dtypes.float0 else x
