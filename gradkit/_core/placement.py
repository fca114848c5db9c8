"""`state_sharding`: a sharding for each leaf of a state."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gradkit._core import check, tree
from gradkit._core.call import error
from gradkit._core.paths import map_with_path
from gradkit._core.types import AnyTransform, Params, abstract_state

NAME = "state_sharding"
LEAST = 1024  # entries of an array that is sharded although it is not like a parameter


class _Place:
    """The shape and the partition of a parameter; a leaf, not a pytree."""

    def __init__(self, shape: tuple[int, ...], spec: PartitionSpec):
        self.shape, self.spec = shape, spec


def state_sharding(
    tx: AnyTransform, params: Params, mesh: Mesh, *, axis: str | None = None
) -> Any:
    """Return a sharding for each leaf of a transform's state, from those of the parameters.

    An array with the shape of its parameter is sharded like the parameter; all others are
    replicated. With `axis`, these arrays, and others of at least 1024 entries, are also sharded
    over that mesh axis, as in ZeRO-1: along their first dimension that is not sharded yet and
    whose length the size of the mesh axis divides.

    Args:
        tx: any transform, of gradkit or optax.
        params: arrays on the mesh, or `jax.ShapeDtypeStruct(shape, dtype, sharding=...)`.
        mesh: the mesh of the run.
        axis: an Auto axis of the mesh over which parameters are replicated, such as "data".

    Returns:
        A tree of `NamedSharding` like `tx.init(params)`, in host memory where that is. Use it in
        `jax.jit(tx.init, out_shardings=placed)(params)`, in `out_shardings` of the jitted update
        (on Auto axes XLA chooses otherwise), in `jax.device_put`, or in the target of a restore.

    Errors: the mesh has no such axis, or it is Explicit; a parameter is on another mesh, or on
        none; `params` is None.
    Limits: state that is kept by matrices, as with `view_by_pattern` or `model=`, does not have
        the shape of a parameter. Methods that factor matrices gather sharded ones.

    >>> mesh = jax.make_mesh((1,), ("data",), (jax.sharding.AxisType.Auto,))
    >>> spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    >>> p = jax.device_put(jnp.ones((8, 4)), spec)
    >>> print(*gk.state_sharding(gk.scale_by_adam(), p, mesh, axis="data").mu.spec)
    data None
    """
    check.transform(NAME, "tx", tx)
    check.given(NAME, params, "init")
    if not isinstance(mesh, Mesh):
        text = f"mesh must be a jax.sharding.Mesh, got {mesh!r}. Call jax.make_mesh."
        raise error(TypeError, NAME, text)
    if axis is not None:
        _check_axis(axis, mesh)
    places = map_with_path(lambda path, p: _place(path, p, mesh), params)

    state = abstract_state(tx, params)
    typed = set(mesh.axis_types) == {AxisType.Explicit}

    def sharded(x: Any, spec: PartitionSpec, is_like: bool) -> Any:
        made = getattr(x, "sharding", None)
        if typed and isinstance(made, NamedSharding):
            spec = made.spec  # as `init` has it, which is part of the type
        entries = [*spec, *[None] * (len(x.shape) - len(spec))]
        if axis is not None and (is_like or math.prod(x.shape) >= LEAST):
            entries = _split(entries, x.shape, axis, mesh.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*entries))

    def of_parameter(x: Any, place: Any) -> Any:
        if tree.is_masked(x):
            return x
        is_like = _is_like(x, place, mesh)
        return sharded(x, place.spec if is_like else PartitionSpec(), is_like)

    placed = optax.tree_map_params(
        tx,
        of_parameter,
        state,
        places,
        transform_non_params=lambda x: sharded(x, PartitionSpec(), False),
        is_leaf=tree.is_masked,
    )
    shardings, structure = jax.tree.flatten(placed)
    spaces = _memory_spaces(tx, params, state)
    pairs = zip(shardings, spaces, strict=True)
    return structure.unflatten(_in_memory(*pair) for pair in pairs)


def _memory_spaces(tx: AnyTransform, params: Params, state: Any) -> list[Any]:
    """Where `init` puts each leaf of `state`, which a `ShapeDtypeStruct` does not say."""
    try:
        made = jax.make_jaxpr(lambda p: tx.init(p))(params).out_avals
    except TypeError:  # it cannot be traced, so `state` is no `ShapeDtypeStruct`
        made = map(jax.typeof, jax.tree.leaves(state))
    return [x.memory_space for x in made]


def _in_memory(sharding: NamedSharding, space: Any) -> NamedSharding:
    is_host = space == jax.memory.Space.Host
    return sharding.with_memory_kind("pinned_host") if is_host else sharding


def _check_axis(axis: Any, mesh: Mesh) -> None:
    names = ", ".join(map(repr, mesh.axis_names))
    if axis not in mesh.axis_names:
        text = f"axis must be an axis of the mesh, {names}, got {axis!r}. Choose one."
        raise error(ValueError, NAME, text)
    if mesh.axis_types[mesh.axis_names.index(axis)] != AxisType.Auto:
        text = f"axis must be an Auto axis of the mesh, got {axis!r}, which is not"
        remedy = "Shard the parameters over it, or make it an Auto axis."
        raise error(ValueError, NAME, f"{text}. {remedy}")


def _place(path: str, p: Any, mesh: Mesh) -> _Place:
    """The place of a parameter, which must be on the mesh."""
    sharding = getattr(p, "sharding", None)
    if isinstance(sharding, NamedSharding) and sharding.mesh.shape == mesh.shape:
        return _Place(p.shape, sharding.spec)
    text = f"leaf {path} must be on the mesh, {dict(mesh.shape)}, got {sharding}"
    remedy = "Place it by jax.device_put(params, NamedSharding(mesh, PartitionSpec()))."
    raise error(ValueError, NAME, f"{text}. {remedy}")


def _is_like(x: Any, place: _Place, mesh: Mesh) -> bool:
    """Whether an array has the shape of its parameter, or is one of codes, two a byte."""
    if x.shape == place.shape:
        return True
    if x.dtype != jnp.uint8 or len(x.shape) != len(place.shape):
        return False
    packed = all(n in (m, (m + 1) // 2) for n, m in zip(x.shape, place.shape))
    return packed and _divides(NamedSharding(mesh, place.spec), x.shape)


def _divides(sharding: NamedSharding, shape: tuple[int, ...]) -> bool:
    try:
        sharding.shard_shape(shape)
    except ValueError:
        return False
    return True


def _split(entries: list[Any], shape: Any, axis: str, count: int) -> list[Any]:
    """`entries`, with `axis` at the first dimension that is free and that `count` divides."""
    used = {a for e in entries for a in (e if isinstance(e, tuple) else (e,))}
    if axis in used:
        return entries
    free = (
        i for i, n in enumerate(shape) if entries[i] is None and n and not n % count
    )
    first = next(free, None)
    return [axis if i == first else e for i, e in enumerate(entries)]
