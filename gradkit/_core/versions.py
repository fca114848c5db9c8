"""The oldest versions the library runs on, and what JAX called otherwise in some of them."""

import importlib.metadata
import re
from typing import Any

import jax
import jax.experimental
import optax

OLDEST = {"jax": "0.7.2", "optax": "0.2.5"}
PLUGINS = {  # the extra of JAX that brings a plugin, and the plugin
    "cuda12": "jax-cuda12-plugin",
    "cuda13": "jax-cuda13-plugin",
    "tpu": "libtpu",
}
any_jax: Any = jax  # of names that not every version has


def check() -> None:
    """JAX and optax are as new as the library needs."""
    for package in (jax, optax):
        name, found = package.__name__, package.__version__
        if _numbers(found) < _numbers(OLDEST[name]):
            raise ImportError(
                f"gradkit: {name} must be at least {OLDEST[name]}, got {found}. "
                f"Run `pip install -U {_with_plugin(name)}` and start Python anew."
            )


def jax_is(oldest: str) -> bool:
    """Whether JAX is of this version or a newer one."""
    return _numbers(jax.__version__) >= _numbers(oldest)


def _numbers(version: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", version)[:3]]


def _with_plugin(name: str) -> str:
    """`name`, of JAX with the extra that renews the accelerator's plugin too."""
    there = {d.name for d in importlib.metadata.distributions()}
    extras = [extra for extra, plugin in PLUGINS.items() if plugin in there]
    return f'"jax[{",".join(extras)}]"' if name == "jax" and extras else name


def enable_x64() -> Any:
    """A context in which float64 stays float64."""
    if hasattr(jax, "enable_x64"):
        return any_jax.enable_x64(True)
    return any_jax.experimental.enable_x64()  # before 0.8


def vary(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """`x` as a part of its own on every device, along these axes of a `shard_map`."""
    if hasattr(jax.lax, "pcast"):
        return any_jax.lax.pcast(x, axes, to="varying")
    return any_jax.lax.pvary(x, axes)  # before 0.8


def bind(eqn: Any, operands: list[Any]) -> Any:
    """What the equation of a jaxpr makes of its operands."""
    found = eqn.primitive.get_bind_params(eqn.params)
    functions, params = found if isinstance(found, tuple) else ([], found)  # before 0.9
    return eqn.primitive.bind(*functions, *operands, **params)


check()
