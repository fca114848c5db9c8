"""The oldest versions the library runs on, and what JAX calls otherwise in some of them."""

import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import optax

OLDEST = {"jax": "0.7.2", "optax": "0.2.5"}
PLUGINS = {"cuda12": "jax-cuda12-plugin", "cuda13": "jax-cuda13-plugin", "tpu": "libtpu"}


def check() -> None:
    """JAX and optax are not older than what the library runs on."""
    here = {"jax": jax.__version__, "optax": optax.__version__}
    for package, oldest in OLDEST.items():
        found = here[package]
        if _numbers(found) < _numbers(oldest):
            raise ImportError(
                f"gradkit: {package} must be at least {oldest}, got {found}. {_advice()}"
            )


def _advice() -> str:
    """How to get newer versions without losing the accelerator."""
    extras = [extra for extra, plugin in PLUGINS.items() if _is_installed(plugin)]
    jax_here = f'"jax[{",".join(extras)}]"' if extras else "jax"
    also = "" if extras else ', or with its plugin, such as "jax[cuda12]", on an accelerator'
    return f"Run `pip install -U {jax_here} optax`{also}, and start Python anew."


def _numbers(found: str) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", found)[:3]]


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def enable_x64() -> Any:
    """A context in which float64 is float64."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # before 0.8

    return enable_x64()


def vary(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """`x` as a part of its own on every device, along these axes of a `shard_map`."""
    if hasattr(jax.lax, "pcast"):
        return jax.lax.pcast(x, axes, to="varying")
    return jax.lax.pvary(x, axes)  # before 0.8


def bind(eqn: Any, operands: list[Any]) -> Any:
    """What the equation of a jaxpr makes of its operands."""
    found = eqn.primitive.get_bind_params(eqn.params)
    functions, params = found if isinstance(found, tuple) else ([], found)  # before 0.9
    return eqn.primitive.bind(*functions, *operands, **params)
