"""The devices that laws about meshes need."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit.testing._compare import Unavailable


def devices(count: int) -> list[Any]:
    """So many devices of one kind."""
    found = jax.devices() if jax.device_count() >= count else jax.devices("cpu")
    if len(found) < count:
        raise Unavailable(
            f"needs {count} devices, has {len(found)}; before jax starts, set "
            "XLA_FLAGS=--xla_force_host_platform_device_count=8"
        )
    return found[:count]


def stack(trees: list[Any]) -> Any:
    """One tree whose leaves have a new first axis, made without compiling anything but keys."""

    def together(*leaves: Any) -> Any:
        if jnp.issubdtype(jnp.result_type(leaves[0]), jax.dtypes.prng_key):
            return jnp.stack(leaves)
        return jnp.asarray(np.stack(leaves))

    return jax.tree.map(together, *trees)
