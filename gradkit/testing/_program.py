"""A function traced once, as `jit` traces it, compiled only if it is called."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import eval_jaxpr
from jax.extend.core import jaxpr_as_fun

from gradkit.testing._compare import same


class Program:
    """`f`, traced once on arguments of these shapes and dtypes."""

    def __init__(self, f: Callable[..., Any], *args: Any):
        self._jaxpr, out = jax.make_jaxpr(f, return_shape=True)(*args)
        self._structure = jax.tree.structure(out)
        self._run = jax.jit(jaxpr_as_fun(self._jaxpr))

    def __call__(self, *args: Any) -> Any:
        return self._structure.unflatten(self._run(*jax.tree.leaves(args)))

    def op_by_op(self, *args: Any) -> Any:
        """What it does to these arguments, as JAX does it where nothing is compiled as a whole."""
        program, leaves = self._jaxpr, jax.tree.leaves(args)
        return self._structure.unflatten(
            eval_jaxpr(program.jaxpr, program.consts, *leaves)
        )

    def same_as(self, other: "Program") -> bool:
        """Both do the same operations on the same leaves, in whatever containers."""
        ours, theirs = self._jaxpr, other._jaxpr
        return (
            str(ours.jaxpr) == str(theirs.jaxpr)
            and len(ours.consts) == len(theirs.consts)
            and all(np.array_equal(a, b) for a, b in zip(ours.consts, theirs.consts))
        )


def agree(what: str, got: Program, want: Program, *args: Any) -> None:
    """Both programs are one, or do the same to these arguments."""
    if not got.same_as(want):
        same(what, got(*args), want(*args))
