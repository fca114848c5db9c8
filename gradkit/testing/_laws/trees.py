"""Law 12."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradkit.testing._compare import attempt, finite, load, same, same_kinds
from gradkit.testing._law import law
from gradkit.testing._program import Program
from gradkit.testing._subject import Subject

Container = Callable[[Mapping[str, Any]], Any]


@law(12)
def trees(s: Subject) -> None:
    """Parameters may be any tree, with leaves that are None, masked, empty or of one element.

    Where this does not hold, some model fails, or trains as if it were another.
    """
    odd_leaves(s)
    params, grads = dict(sorted(s.params.items())), dict(sorted(s.grads(0).items()))
    for name, wrap in containers(list(params)):
        with attempt(f"an update of {name}"):
            p, g = wrap(params), wrap(grads)
            wrapped = Program(s.update, g, jax.eval_shape(s.tx.init, p), p)
        same_kinds(f"the update of {name}", wrapped.out[0], g)
        if not wrapped.same_as(s.program):
            state = s.tx.init(p)
            got = jax.tree.leaves(wrapped(g, state, p)[0])
            want = jax.tree.leaves(s.run.updates[0])
            same(f"the leaves updated in {name}, in the order of a dict,", got, want)


def odd_leaves(s: Subject) -> None:
    """Empty leaves and leaves of one element do no harm, nor does a tree without leaves."""
    shapes = {}
    for name, shape in s.shapes.items():
        if shape and len(shape) not in map(len, shapes.values()):
            shapes[f"{name}_empty"] = (0, *shape[1:])
            shapes[f"{name}_single"] = (1,) * len(shape)
    params = s.params | {k: jnp.full(v, 0.5, jnp.float32) for k, v in shapes.items()}
    for tree in ({}, params):
        what = f"leaves of shapes {[x.shape for x in tree.values()]}"
        with attempt(f"an update of {what}"):
            state = jax.jit(s.tx.init)(tree)
            program = Program(s.update, tree, state, tree)
            for _ in range(2):
                updates, state = program(tree, state, tree)
                finite(f"the update of {what}", updates)
                finite(f"the state of {what}", state)


def containers(names: list[str]) -> Iterator[tuple[str, Container]]:
    """Ways to hold the leaves of a dict, in the same order."""
    named = enumerate(names)
    fields = [name if name.isidentifier() else f"leaf_{i}" for i, name in named]
    Model = dataclasses.make_dataclass("Model", fields)
    jax.tree_util.register_dataclass(Model, data_fields=fields, meta_fields=[])
    nothing = {"~none": None, "~masked": optax.MaskedNode()}
    yield "a tuple of dicts", lambda leaves: tuple({k: x} for k, x in leaves.items())
    yield "a dataclass", lambda leaves: Model(*leaves.values())
    yield "a dict with None and MaskedNode", lambda leaves: {**leaves, **nothing}
    yield "a FrozenDict", load("flax.core").FrozenDict
    yield "an nnx.State", load("flax.nnx").State
