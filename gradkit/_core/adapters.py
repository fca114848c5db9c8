"""Matrices of a model, with products of two thin factors beside them."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from gradkit._core import check, numbers, paths, tree
from gradkit._core.numbers import Tree

PRECISE = jax.lax.Precision.HIGHEST


class Adapters(NamedTuple):
    """Low-rank adapters: train `a` and `b`, of the loss at `weights()`."""

    params: Tree  # parameters of the model, to be frozen
    a: Tree  # [..., in, rank] at each adapted leaf, optax.MaskedNode at all others
    b: Tree  # [..., rank, out]
    scale: Any  # of the product, []

    def weights(self) -> Tree:
        """The parameters of the adapted model, `params + scale * a @ b`, in their own dtypes."""
        return summed(self.params, products(self.a, self.b, self.scale))


def products(a: Tree, b: Tree, scale: Any) -> Tree:
    """`scale * a @ b` at every place that has factors."""

    def product(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.asarray(scale, a.dtype) * jnp.matmul(a, b, precision=PRECISE)

    return jax.tree.map(product, a, b)


def summed(params: Tree, others: Tree, sign: int = 1) -> Tree:
    """`params`, plus or minus what `others` has at some of their places."""

    def add(p: Any, x: Any) -> Any:
        if tree.is_masked(x):
            return p
        wide = numbers.wide_dtype(p)
        return (p.astype(wide) + sign * x.astype(wide)).astype(p.dtype)

    leaves = jax.tree.leaves(others, is_leaf=tree.is_masked)
    given, structure = jax.tree.flatten(params)
    return structure.unflatten(map(add, given, leaves))


def chosen(method: str, params: Tree, matrices: str | None) -> list[str]:
    """The paths of leaves that the expression `matrices` is found in; if None, of two axes."""
    found = [(path, jnp.ndim(p)) for path, p in check.leaves(params)]
    if matrices is None:
        kept = [path for path, ndim in found if ndim == 2]
        want, got = "params must have a leaf of two axes", "none"
        remedy = "Name leaves of more axes by matrices, if their last two are a matrix."
        check.holds(method, bool(kept), want, got, remedy)
        return kept
    check.expression(method, "matrices", matrices)
    kept = [(path, ndim) for path, ndim in found if re.search(matrices, path)]
    want = "matrices must be found in the path of a parameter"
    names = f"Choose from {sorted(path for path, _ in found)}."
    check.holds(method, bool(kept), want, repr(matrices), names)
    for path, ndim in kept:
        want = (
            f"leaf {path} must have at least 2 axes, of which the last two are a matrix"
        )
        check.holds(method, ndim > 1, want, f"{ndim} axes", "Leave it out of matrices.")
    return [path for path, _ in kept]


def check_finite(method: str, what: str, x: Any, remedy: str) -> None:
    """Refuse an array with entries that are not finite, where they are known."""
    with jax.ensure_compile_time_eval():
        good = isinstance(x, Tracer) or bool(jnp.isfinite(x).all())
    check.holds(method, good, f"{what} must be finite", "entries that are not", remedy)


def placed(params: Tree, values: dict[str, Any]) -> Tree:
    """A tree like `params` with these values by path, and `optax.MaskedNode` elsewhere."""
    names = paths.leaf_paths(params)
    leaves = [values.get(path, optax.MaskedNode()) for path in names]
    return jax.tree.structure(params).unflatten(leaves)


def wide(x: Any) -> jax.Array:
    """An array in at least float32."""
    x = jnp.asarray(x)
    return x.astype(numbers.wide_dtype(x))
