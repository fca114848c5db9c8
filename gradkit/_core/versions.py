"""The oldest supported versions of JAX and optax, and functions that JAX has renamed."""

import importlib.metadata
import re
from typing import Any

import jax
import jax.experimental
import jax.extend.core
import optax

OLDEST = {"jax": "0.7.2", "optax": "0.2.5"}
PLUGINS = {  # an extra of JAX, and the plugin that it installs
    "cuda12": "jax-cuda12-plugin",
    "cuda13": "jax-cuda13-plugin",
    "tpu": "libtpu",
}
any_jax: Any = jax  # untyped, for names that some versions lack


def check() -> None:
    """Raise an ImportError if JAX or optax is older than the library needs."""
    for package in (jax, optax):
        name, version = package.__name__, package.__version__
        if _numbers(version) < _numbers(OLDEST[name]):
            raise ImportError(
                f"gradkit: {name} must be at least {OLDEST[name]}, got {version}. "
                f"Run `pip install -U {_with_plugin(name)}` and start Python anew."
            )


def jax_is(oldest: str) -> bool:
    """Whether JAX is of this version or newer."""
    return _numbers(jax.__version__) >= _numbers(oldest)


def _numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)[:3]]


def _with_plugin(name: str) -> str:
    """The requirement to install: `name`, for JAX with the extras of installed plugins."""
    installed = {d.name for d in importlib.metadata.distributions()}
    extras = [extra for extra, plugin in PLUGINS.items() if plugin in installed]
    return f'"jax[{",".join(extras)}]"' if name == "jax" and extras else name


def enable_x64() -> Any:
    """A context in which float64 stays float64."""
    if hasattr(jax, "enable_x64"):
        return any_jax.enable_x64(True)
    return any_jax.experimental.enable_x64()  # before 0.8


def vary(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """`x`, cast to vary along these axes of a `shard_map`."""
    if hasattr(jax.lax, "pcast"):
        return any_jax.lax.pcast(x, axes, to="varying")
    return any_jax.lax.pvary(x, axes)  # before 0.8


def trace_state() -> Any:
    """An object for the current trace, equal to that of any other moment of the same trace."""
    if hasattr(jax.extend.core, "get_opaque_trace_state"):
        return any_jax.extend.core.get_opaque_trace_state()
    return any_jax.core.get_opaque_trace_state()  # before it moved


def bind(eqn: Any, operands: list[Any]) -> Any:
    """Evaluate an equation of a jaxpr on these operands."""
    bound = eqn.primitive.get_bind_params(eqn.params)
    functions, params = bound if isinstance(bound, tuple) else ([], bound)  # before 0.9
    return eqn.primitive.bind(*functions, *operands, **params)


check()
