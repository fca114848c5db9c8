"""Law 26."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradkit._core.versions import jax_is
from gradkit.testing._compare import attempt, same
from gradkit.testing._devices import devices, stack
from gradkit.testing._law import law
from gradkit.testing._subject import Subject


@law(26)
def spmd_vmap(s: Subject) -> None:
    """Two runs under `jax.vmap(spmd_axis_name=)`, with a mesh in use, are the two runs in a loop.

    Where this does not hold, an axis of the mesh is taken that the caller gave to `vmap`, and
    experts, pipeline stages or members of a population cannot be spread over devices.
    """
    args = stack([s.grads(0), s.grads(1)]), stack(s.run.states[:2])
    args = *args, stack([s.params] * 2)
    update = jax.vmap(s.update, spmd_axis_name="data")
    updates, state = on_mesh(jax.jit(update), args, AxisType.Auto)
    same("the update under vmap(spmd_axis_name=)", updates, stack(s.run.updates[:2]))
    same("the state under vmap(spmd_axis_name=)", state, stack(s.run.states[1:3]))
    if jax_is("0.9"):  # before, JAX knows no vmap over axes that it shards by type
        on_mesh(functools.partial(jax.eval_shape, update), args, AxisType.Explicit)


def on_mesh(f: Callable[..., Any], args: Any, kind: AxisType) -> Any:
    """`f` of a run on each row of devices, along which it may be spread."""
    mesh = jax.make_mesh((2, 2), ("data", "model"), (kind, kind), devices=devices(4))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    what = f"an update under vmap(spmd_axis_name=) on a mesh of {kind.name} axes"
    with jax.set_mesh(mesh), attempt(what):
        return f(*jax.device_put(args, rows))
