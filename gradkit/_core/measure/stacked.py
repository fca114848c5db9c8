"""Trees like the parameters, alone or several of them stacked along a first axis of every leaf."""

from typing import Any

import jax
import numpy as np

from gradkit._core import check, numbers
from gradkit._core.measure.loss import real
from gradkit._core.mismatch import mismatch
from gradkit._core.numbers import Tree


def like(
    method: str, name: str, given: Tree, params: Tree, other: str = "params"
) -> Tree:
    """`given` in at least float32, which must be a tree like `params`, which are called `other`."""
    difference = mismatch(given, params)
    want, remedy = f"{name} must be a tree like {other}", "Pass the same model's."
    said = (difference or "").removesuffix(" for leaf ")  # of one array, without a path
    check.holds(method, difference is None, want, said, remedy)
    real(method, given, name)
    return numbers.wide(given)


def several(method: str, name: str, given: Tree, params: Tree, least: int = 1) -> Tree:
    """`given` in at least float32, which must be `least` trees like `params` or more, stacked."""
    lengths = {np.shape(x)[0] if np.ndim(x) else 0 for x in jax.tree.leaves(given)}
    want = f"{name} must be stacked along one first axis of every leaf"
    remedy = "Stack trees by jax.tree.map(lambda *x: jnp.stack(x), *trees)."
    check.holds(method, len(lengths) == 1, want, f"lengths {sorted(lengths)}", remedy)
    want = f"{name} must have {least} or more along the first axis"
    check.holds(method, min(lengths) >= least, want, min(lengths), "Stack more.")
    like(method, f"{name}, of one index,", jax.tree.map(lambda x: x[0], given), params)
    return numbers.wide(given)


def count(t: Any) -> int:
    """How many trees are stacked."""
    return jax.tree.leaves(t)[0].shape[0]
