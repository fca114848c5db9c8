"""Law 8."""

from types import ModuleType
from typing import Any

import jax
import optax
from jax.sharding import AxisType

from gradkit.testing._compare import attempt, load, require, same
from gradkit.testing._law import law
from gradkit.testing._subject import Subject


@law(8)
def nnx(s: Subject) -> None:
    """`nnx.Optimizer` is built and stepped inside `nnx.jit`, plain and with sharded parameters.

    Where this does not hold, Flax NNX cannot use the transform, or shards its state wrongly.
    """
    flax = load("flax.nnx")
    mesh = jax.make_mesh((1, 1), ("x", "y"), (AxisType.Auto, AxisType.Auto))
    axes = {k: ("x", "y", *[None] * len(v))[: len(v)] for k, v in s.shapes.items()}
    plain = {k: {} for k in s.shapes}
    with attempt("nnx.Optimizer inside nnx.jit"):
        step(flax, s, plain).eval_shape(s.params, s.grads(0))
    sharded = {k: {"out_sharding": spec} for k, spec in axes.items()}
    with jax.set_mesh(mesh), attempt("nnx.Optimizer with sharded parameters"):
        optimizer, updates = step(flax, s, sharded)(s.params, s.grads(0))
    updates = {k: updates[k] for k in s.shapes}
    same("the update of nnx.Optimizer", updates, s.run.updates[0])
    known = {(spec, s.shapes[k]) for k, spec in axes.items()}
    for path, x in flax.to_flat_state(flax.state(optimizer)):
        spec = x.get_metadata().get("out_sharding")
        if spec is None or not jax.tree.leaves(x):
            continue
        require(
            (spec, x.shape) in known,
            f"state leaf {'/'.join(map(str, path))!r} must have the shape of the parameter "
            f"whose sharding {spec} it inherits, got {x.shape}; keep it in a tree of plain arrays",
        )


def step(flax: ModuleType, s: Subject, metadata: dict[str, Any]) -> Any:
    """Under `nnx.jit`, (params, grads) -> (the optimizer after one update, the update)."""

    class Model(flax.Module):
        def __init__(self, values: dict[str, jax.Array]):
            for name, value in values.items():
                setattr(self, name, flax.Param(value, **metadata[name]))

    def build(params: dict[str, jax.Array], grads: dict[str, jax.Array]) -> Any:
        made = []  # `Optimizer.update` returns it in the newest versions of Flax alone

        def update(*args: Any, **extra: Any) -> tuple[Any, Any]:
            updates, state = s.tx.update(*args, **extra)
            made.append(updates)
            return updates, state

        tx = optax.GradientTransformationExtraArgs(s.tx.init, update)
        model = Model(params)
        optimizer = flax.Optimizer(model, tx, wrt=flax.Param)
        optimizer.update(model, flax.state(Model(grads), flax.Param), **s.extra)
        return optimizer, made[0]

    return flax.jit(build)
