"""Law 18."""

import math

import jax
import jax.numpy as jnp
import optax

from gradkit.testing._compare import require
from gradkit.testing._law import law
from gradkit.testing._stated import Shapes, stated
from gradkit.testing._subject import Subject


@law(18)
def state_bytes(s: Subject) -> None:
    """The state of float32 parameters has exactly the bytes that the docstring states.

    Where this does not hold, the memory plan of a large run is wrong.
    """
    formula = stated(s, "State")
    inside = formula.shapes_inside(s.shapes)
    inner = sum(size(s.arguments[name], inside) for name in formula.inner)
    want, got = formula.total(s.shapes) + inner, size(s.tx, s.shapes)
    require(got == want, f"the state must have {want} bytes as stated, got {got}")


def size(tx: optax.GradientTransformation, shapes: Shapes) -> int:
    """The bytes of the state of `tx` for float32 parameters of these shapes."""
    params = {k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in shapes.items()}
    state = jax.eval_shape(tx.init, params)
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
