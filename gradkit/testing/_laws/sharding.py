"""Law 7."""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gradkit.testing._compare import attempt, leaves, require, same
from gradkit.testing._devices import devices
from gradkit.testing._law import law
from gradkit.testing._subject import Subject


@law(7)
def sharding(s: Subject) -> None:
    """Sharded over 8 devices, updates and states are those of one device.

    Where this does not hold, the transform is another one, or none, on more than one device.
    """
    given = s.params, s.grads(0)  # made outside of any mesh, as other laws share them
    for types in (AxisType.Auto, AxisType.Explicit):
        when = f"on a mesh of {types.name} axes"
        mesh = jax.make_mesh((4, 2), ("x", "y"), (types, types), devices=devices(8))
        with jax.set_mesh(mesh), attempt(f"an update {when}"):
            params, grads = (shard(x, mesh) for x in given)
            eager = types == AxisType.Auto  # once so, once compiled
            state = (s.tx.init if eager else jax.jit(s.tx.init))(params)
            updates, new = jax.jit(s.update)(grads, state, params)
        same(f"the update {when}", updates, s.run.updates[0])
        same(f"the state {when}", new, s.run.states[1])
        if types == AxisType.Explicit:
            same_types(f"the update {when}", updates, grads)
            same_types(f"the state {when}", new, state)


def shard(tree: dict[str, jax.Array], mesh: Mesh) -> dict[str, jax.Array]:
    """Every leaf with each mesh axis on the first of its axes that it divides."""

    def place(x: jax.Array) -> jax.Array:
        left, spec = dict(mesh.shape), []
        for size in x.shape:
            axis = next((a for a, n in left.items() if size and size % n == 0), None)
            spec.append(axis)
            left.pop(axis, None)
        whole = np.asarray(x)  # of which no program is compiled to take parts
        return jax.device_put(whole, NamedSharding(mesh, PartitionSpec(*spec)))

    return {k: place(x) for k, x in tree.items()}


def same_types(what: str, got: object, want: object) -> None:
    """Every leaf is sharded as it was, as part of its type, so that it can be carried."""
    due = leaves(want)
    for path, x in leaves(got).items():
        ours, theirs = jax.typeof(x), jax.typeof(due[path])
        require(
            ours == theirs,
            f"{what}, leaf {path!r}, must be sharded as before, {theirs}, got {ours}",
        )
