"""Gradients of the parts of a batch, stacked along the first axis of every leaf."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers
from gradkit._core.numbers import Tree


def stacked(method: str, gradients: Tree) -> tuple[list[jax.Array], int]:
    """The leaves in at least float32, finite, and how many parts each of them has."""
    check.real(method, gradients)
    found = check.leaves(gradients)
    counts = {path: g.shape[0] if g.ndim else 0 for path, g in found}
    parts = max(counts.values(), default=0)
    for path, count in counts.items() or {"of the gradients": 0}.items():
        want = f"leaf {path} must have an axis of {max(parts, 2)} parts first"
        remedy = "Stack the gradients of two parts or more."
        check.holds(method, 1 < count == parts, want, count, remedy)
    return jax.tree.leaves(numbers.read(gradients)), parts


def next_size(wanted: Any, now: int, most: int) -> jax.Array:
    """The batch size that is wanted, rounded up, not below that of now, and up to the most."""
    return jnp.clip(jnp.ceil(wanted), now, max(now, most)).astype(jnp.int32)
