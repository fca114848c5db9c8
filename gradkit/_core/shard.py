"""Arrays on a mesh: replicate, shard like another array, or split work over devices."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax._src.core import get_axis_env
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradkit._core.versions import jax_is


def whole(x: jax.Array) -> jax.Array:
    """`x`, gathered if its type is sharded, so that it can be reshaped."""
    sharding = jax.typeof(x).sharding
    if all(axis is None for axis in sharding.spec):
        return x
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec()))


def alike(x: jax.Array, y: jax.Array) -> jax.Array:
    """`x`, with the sharding of `y` if that has a mesh."""
    old, new = jax.typeof(x).sharding, jax.typeof(y).sharding
    stays = old == new or new.mesh.empty
    return x if stays else jax.sharding.reshard(x, new)


def replicated(x: jax.Array) -> jax.Array:
    """`x`, replicated on every device of the current mesh, whose axes are Auto or Explicit."""
    return _constrain(x, PartitionSpec()) if _size(_axes()) > 1 else x


def in_parts() -> bool:
    """Whether named axes are in scope, of a `shard_map`, `pmap` or `vmap`."""
    return bool(get_axis_env().axis_sizes)


def devices() -> int:
    """The number of devices of the current mesh that `share` can split work over.

    It is 1 inside `vmap(spmd_axis_name=)`, whose mesh axes are the caller's.
    """
    axes = get_axis_env()  # no public API has these
    explicit = getattr(axes, "explicit_mesh_axis_names", None)  # from JAX 0.8 on
    return 1 if axes.spmd_axis_names or explicit else _size(_axes())


def share(f: Callable[[jax.Array], jax.Array], stack: jax.Array) -> jax.Array:
    """`f(stack)`, split evenly over the devices along the first axis, padded with zeros.

    A device sends its results once: each matrix leaves it in as many parts as there are devices,
    and the padding is cut off where it is. If no side of a matrix can be split, XLA chooses on
    Auto axes, and on Explicit ones all devices receive everything, with the padding.
    """
    count, fill = len(stack), -len(stack) % devices()
    filled = jnp.pad(stack, [(0, fill), *[(0, 0)] * (stack.ndim - 1)])
    axes = _axes()
    spread = PartitionSpec(axes)
    each = jax.shard_map(
        f, in_specs=spread, out_specs=spread, axis_names=set(axes), check_vma=False
    )
    done = each(_constrain(filled, spread))
    sides = [i for i, n in enumerate(done.shape) if i and n % _size(axes) == 0]
    if sides:
        done = _constrain(done, PartitionSpec(*[None] * sides[0], axes))[:count]
        return whole(done)
    return whole(done)[:count]


def where_it_is(f: Callable[[Any], Any], stacks: Any) -> Any:
    """`f(stacks)`, computed by each device on its own shard of the first axis."""
    first = jax.typeof(stacks[0]).sharding.spec[0]
    axes = (first,) if isinstance(first, str) else first
    if not axes:
        return f(stacks)
    spread = PartitionSpec(axes)
    each = jax.shard_map(f, in_specs=spread, out_specs=spread, axis_names=set(axes))
    return each(stacks)


def _axes() -> tuple[str, ...]:
    """Axes of the current mesh that no `shard_map` around has made manual.

    Inside a `shard_map` over some axes JAX 0.7 cannot use the others: the result is then empty.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if AxisType.Manual in mesh.axis_types and not jax_is("0.8"):
        return ()
    types = zip(mesh.axis_names, mesh.axis_types)
    return tuple(axis for axis, kind in types if kind != AxisType.Manual)


def _size(axes: tuple[str, ...]) -> int:
    """The number of devices along these axes of the current mesh."""
    return math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in axes)


def _constrain(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    explicit = AxisType.Explicit in jax.sharding.get_abstract_mesh().axis_types
    place = jax.sharding.reshard if explicit else jax.lax.with_sharding_constraint
    return place(x, spec)
