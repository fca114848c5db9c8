"""A function traced once, as `jit` traces it, compiled only if it is called."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from gradkit.testing._compare import same


class Program:
    """`f`, traced once on arguments of these shapes and dtypes; `out` has those of its result."""

    def __init__(self, f: Callable[..., Any], *args: Any):
        self.traced, self.out = jax.make_jaxpr(f, return_shape=True)(*args)
        self._run = jax.jit(jaxpr_as_fun(self.traced))

    def __call__(self, *args: Any) -> Any:
        return self._unflatten(self._run(*jax.tree.leaves(args)))

    def in_detail(self, *args: Any) -> Any:
        """Call it in a program that returns the result of every operation, so that none is fused away."""
        found = self._in_detail(*jax.tree.leaves(args))
        return self._unflatten(found[: len(self.traced.out_avals)])

    @functools.cached_property
    def _in_detail(self) -> Callable[..., list[Any]]:
        program = self.traced.jaxpr
        every = [v for operation in program.eqns for v in operation.outvars]
        whole = program.replace(outvars=[*program.outvars, *every])
        return jax.jit(jaxpr_as_fun(ClosedJaxpr(whole, self.traced.consts)))

    def _unflatten(self, leaves: list[Any]) -> Any:
        return jax.tree.structure(self.out).unflatten(leaves)

    def same_as(self, other: "Program") -> bool:
        """Both do the same operations on the same leaves, in whatever containers."""
        ours, theirs = self.traced, other.traced
        return (
            str(ours.jaxpr) == str(theirs.jaxpr)
            and len(ours.consts) == len(theirs.consts)
            and all(np.array_equal(a, b) for a, b in zip(ours.consts, theirs.consts))
        )


def agree(what: str, got: Program, want: Program, *args: Any) -> None:
    """Both programs are one, or do the same to these arguments."""
    if not got.same_as(want):
        same(what, got(*args), want(*args))
