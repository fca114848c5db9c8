"""LAWN: weights whose norm stays what it was after a free start."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.matrix import linalg
from gradkit._core.norms import of_leaves
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class FixedNormState(NamedTuple):
    """State of `retract_by_fixed_norm`."""

    count: jax.Array  # updates so far, int32 []
    norms: jax.Array  # norm of every leaf at the last free update, [leaves]


@factory
def retract_by_fixed_norm(free_steps: Hyper = 0) -> Transform:
    r"""Move each leaf along the sphere of its norm, after some free updates.

    $$\xi = \Delta - \frac{\langle \Delta, p \rangle}{\lVert p \rVert^2} \, p, \qquad
      u = c \, \frac{p + \xi}{\lVert p + \xi \rVert} - p$$

    with $c$ the norm of $p$ after `free_steps` updates, which pass as they are.

    Args:
        free_steps: updates before the norms are fixed.

    Needs: params. Stands last in a chain.
    State: `4` bytes a leaf, `4` once.
    Flops: at most `50*size + 40` a leaf, `40` once.
    Paper: Gupta and others, "Logit Attenuating Weight Normalization", arXiv:2108.05839.
    Departure: the update of the chain is projected onto the tangent space; the paper projects
        gradients. When norms become fixed, momenta in the chain are kept, and the learning rate
        does not start again. All leaves are normalized, not only those of the last layers: choose
        with `gradkit.route`.
    Limits: leaves of fewer than two axes pass as they are, and so does a leaf whose norm was
        zero when it should have been fixed. A non-finite entry counts as zero.

    >>> tx = gk.retract_by_fixed_norm()
    >>> p = jnp.array([[3.0], [4.0]])
    >>> q = p + tx.update(jnp.array([[1.0], [7.0]]), tx.init(p), p)[0]
    >>> print(jnp.linalg.norm(q).round(3))
    5.0
    """
    check.nonnegative("retract_by_fixed_norm", free_steps=free_steps)

    def init(params: Params) -> FixedNormState:
        return FixedNormState(jnp.zeros([], jnp.int32), tree.zero_per_leaf(params))

    def update(
        updates: Updates, state: FixedNormState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, FixedNormState]:
        del extra
        check.given("retract_by_fixed_norm", params)
        step = state.count.astype(jnp.float32)
        free = jnp.asarray(free_steps, jnp.float32)
        p = numbers.read(params)
        current = of_leaves(p).astype(state.norms.dtype)
        norms = jnp.where(step <= free, current, state.norms)
        leaves, structure = jax.tree.flatten(numbers.read(updates))

        def retract(
            u: jax.Array, p: jax.Array, norm: jax.Array, c: jax.Array
        ) -> jax.Array:
            if u.ndim < 2:
                return u
            p, norm, c = (x.astype(u.dtype) for x in (p, norm, c))
            unit = p * numbers.inverse(norm)
            tangent = u - jnp.sum(u * unit, keepdims=True) * unit
            on_sphere = linalg.onto_sphere(p, tangent, c)
            return jnp.where((step < free) | (c == 0), u, on_sphere)

        u = structure.unflatten(
            map(retract, leaves, jax.tree.leaves(p), current, norms)
        )
        return numbers.like(u, updates), FixedNormState(
            numbers.increment(state.count), norms
        )

    return transform(init, update)
