"""Arrays on a mesh: gathered, sharded as another one, or spread over all of its devices."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax._src.core import get_axis_env
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradkit._core.versions import jax_is


def whole(x: jax.Array) -> jax.Array:
    """`x` on no axis of the mesh, so that it may be reshaped freely."""
    sharding = jax.typeof(x).sharding
    if all(axis is None for axis in sharding.spec):
        return x
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec()))


def alike(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x` sharded as `y` is, where that is on a mesh."""
    here, there = jax.typeof(x).sharding, jax.typeof(y).sharding
    stays = here == there or there.mesh.empty
    return x if stays else jax.sharding.reshard(x, there)


def replicated(x: jax.Array) -> jax.Array:
    """`x` whole on every device of the mesh in use, also where XLA chooses."""
    return _constrain(x, PartitionSpec()) if _size(_axes()) > 1 else x


def in_parts() -> bool:
    """Whether a device sees a part of each array, under a `shard_map`, or axes have names."""
    return bool(get_axis_env().axis_sizes)


def devices() -> int:
    """Over how many devices of the mesh in use work can be spread.

    Not where a `vmap` with `spmd_axis_name` has spread its batch: its axes are the caller's.
    """
    axes = get_axis_env()  # JAX tells of these nowhere else
    explicit = getattr(axes, "explicit_mesh_axis_names", None)  # from JAX 0.8 on
    return 1 if axes.spmd_axis_names or explicit else _size(_axes())


def share(f: Callable[[jax.Array], jax.Array], stack: jax.Array) -> jax.Array:
    """`f` of a stack, of which each device of the mesh takes an equal number, filled with zeros."""
    count, fill = len(stack), -len(stack) % devices()
    filled = jnp.pad(stack, [(0, fill), *[(0, 0)] * (stack.ndim - 1)])
    axes = _axes()
    spread = PartitionSpec(axes)
    each = jax.shard_map(
        f, in_specs=spread, out_specs=spread, axis_names=set(axes), check_vma=False
    )
    return _constrain(each(_constrain(filled, spread)), PartitionSpec())[:count]


def where_it_is(f: Callable[[Any], Any], stacks: Any) -> Any:
    """`f` of stacks, of which each device takes the part that it has, by the first axis."""
    first = jax.typeof(stacks[0]).sharding.spec[0]
    axes = (first,) if isinstance(first, str) else first
    if not axes:
        return f(stacks)
    spread = PartitionSpec(axes)
    each = jax.shard_map(f, in_specs=spread, out_specs=spread, axis_names=set(axes))
    return each(stacks)


def _axes() -> tuple[str, ...]:
    """The axes of the mesh in use that are not in a `shard_map`.

    Inside of one over other axes, JAX 0.7 spreads nothing over them.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if AxisType.Manual in mesh.axis_types and not jax_is("0.8"):
        return ()
    types = zip(mesh.axis_names, mesh.axis_types)
    return tuple(axis for axis, kind in types if kind != AxisType.Manual)


def _size(axes: tuple[str, ...]) -> int:
    """How many devices of the mesh in use these axes have."""
    return math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in axes)


def _constrain(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    explicit = AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types
    place = jax.sharding.reshard if explicit else jax.lax.with_sharding_constraint
    return place(x, spec)
