"""Law 25."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradkit.testing._compare import attempt, same
from gradkit.testing._devices import devices, stack
from gradkit.testing._law import law
from gradkit.testing._subject import Subject

FACTORS = (1.0, 0.9)  # of the parameters: one part each device
MESHES = {  # the axes that `shard_map` takes over, and the kind of the other one
    "in shard_map": ({"x", "y"}, AxisType.Auto),
    "in shard_map over one axis": ({"x"}, AxisType.Auto),
    "in shard_map beside an Explicit axis": ({"x"}, AxisType.Explicit),
}


@law(25)
def manual_mesh(s: Subject) -> None:
    """In `jax.shard_map`, every device updates parameters and a state of its own.

    The state is given, or made inside and carried through `lax.scan`; and `check_vma`, on by
    default, follows what differs between devices. Where this does not hold, a program written
    device by device cannot use the transform: pipelines, experts, populations.
    """
    times = lambda a, p: jnp.asarray(np.float32(a) * np.asarray(p))
    params = [jax.tree.map(functools.partial(times, a), s.params) for a in FACTORS]
    grads = [[s.grads(2 * t + i) for t in range(2)] for i in range(2)]
    given = (
        stack([g[0] for g in grads]),
        stack([*map(s.tx.init, params)]),
        stack(params),
    )
    for where, (axes, kind) in MESHES.items():
        mesh = jax.make_mesh((2, 2), ("x", "y"), (kind, kind), devices=devices(4))
        with jax.set_mesh(mesh), attempt(f"an update {where}"):
            rows = NamedSharding(mesh, PartitionSpec("x"))
            parts = jax.tree.map(lambda x, rows=rows: kind_on(rows, x), given)
            jax.eval_shape(each(s.update, axes), *parts)

    def run(grads: Any, params: Any) -> tuple[Any, Any]:
        def step(carry: Any, grads: Any) -> tuple[Any, Any]:
            updates, state = s.update(grads, *carry)
            return (state, optax.apply_updates(carry[1], updates)), updates

        (state, _), updates = jax.lax.scan(step, (s.tx.init(params), params), grads)
        return updates, state

    mesh = jax.make_mesh((2,), ("x",), (AxisType.Auto,), devices=devices(2))
    with jax.set_mesh(mesh), attempt("init and lax.scan over updates in shard_map"):
        turns = stack([*map(stack, grads)])
        updates, state = jax.jit(each(run, {"x"}))(turns, stack(params))
    alone = [in_turn(s, g, p) for g, p in zip(grads, params)]
    same("updates in shard_map", updates, stack([u for u, _ in alone]))
    same("the state in shard_map", state, stack([state for _, state in alone]))


def kind_on(rows: NamedSharding, x: jax.Array) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array that is sharded so."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows)


def each(f: Callable[..., Any], axes: set[str]) -> Callable[..., Any]:
    """`f` of each part on a device of its own: parts are along the first axis of all leaves."""

    def part(*given: Any) -> Any:
        own = jax.tree.map(lambda x: x[0], given)
        return jax.tree.map(lambda x: x[None], f(*own))

    spec = PartitionSpec("x")
    return jax.shard_map(part, in_specs=spec, out_specs=spec, axis_names=axes)


def in_turn(s: Subject, grads: list[Any], params: Any) -> tuple[Any, Any]:
    """The updates of one part on one device, and the state after them."""
    state, out = s.tx.init(params), []
    for g in grads:
        updates, state = s.step(g, state, params)
        params = optax.apply_updates(params, updates)
        out.append(updates)
    return stack(out), state
