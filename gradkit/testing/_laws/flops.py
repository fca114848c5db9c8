"""Law 19."""

import jax
import jax.numpy as jnp
import optax

from gradkit.testing._compare import require
from gradkit.testing._law import law
from gradkit.testing._stated import Shapes, stated
from gradkit.testing._subject import Subject

GROWTH = 16  # of every axis, so that what a leaf costs once does not count


@law(19)
def flops(s: Subject) -> None:
    """An update takes no more floating operations than the docstring states.

    Where this does not hold, a step costs more than its user was told. Counted by XLA on the
    program as traced, before any backend: `jax.jit(update).lower(...).cost_analysis()`.
    """
    formula = stated(s, "Flops")
    shapes = {k: tuple(GROWTH * n for n in v) for k, v in s.shapes.items()}
    inside = formula.shapes_inside(shapes)
    inner = sum(count(s, s.arguments[name], inside) for name in formula.inner)
    ceiling, got = formula.total(shapes) + inner, count(s, s.tx, shapes)
    require(
        got <= ceiling,
        f"an update of shapes {list(shapes.values())} must take at most {ceiling:g} flops "
        f"as stated, got {got:g}",
    )


def count(s: Subject, tx: optax.GradientTransformation, shapes: Shapes) -> float:
    """The flops of one update of `tx`."""
    tx = optax.with_extra_args_support(tx)
    params = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in shapes.items()}
    state = jax.eval_shape(tx.init, params)
    update = jax.jit(lambda g, state, p: tx.update(g, state, p, **s.extra))
    cost = update.lower(params, state, params).cost_analysis()
    return float(cost.get("flops", 0)) if cost else 0.0
