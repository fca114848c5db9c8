"""Law 18."""

import math

import jax
import jax.numpy as jnp

from gradkit.testing._compare import require
from gradkit.testing._law import law
from gradkit.testing._stated import stated
from gradkit.testing._subject import Subject


@law(18)
def state_bytes(s: Subject) -> None:
    """The state of float32 parameters has exactly the bytes that the docstring states.

    Where this does not hold, the memory plan of a large run is wrong.
    """
    formula = stated(s, "State")
    inner = [size(s.arguments[name], s) for name in formula.inner]
    want = formula(s.shapes) + sum(inner)
    got = size(s.tx, s)
    require(got == want, f"the state must have {want} bytes as stated, got {got}")


def size(tx: object, s: Subject) -> int:
    """The bytes of the state of `tx` for the subject's parameters."""
    init = getattr(tx, "init")
    state = jax.eval_shape(init, s.params)
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state))
