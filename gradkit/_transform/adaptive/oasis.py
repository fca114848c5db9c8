"""OASIS: gradients scaled by an EMA of the Hessian's diagonal, whatever its sign."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class OASISState(NamedTuple):
    """State of `scale_by_oasis`."""

    count: jax.Array  # updates so far, int32 []
    curvature: Updates  # EMA of the diagonal of the Hessian, like the parameters


@factory
def scale_by_oasis(decay: Hyper = 0.99, *, min_curvature: Hyper = 1e-3) -> Transform:
    r"""Divide each gradient by the size of the curvature along its own parameter.

    $$D_1 = h_1, \qquad D_t = \mathrm{decay} \, D_{t-1} + (1 - \mathrm{decay}) h_t, \qquad
      u_t = \frac{g_t}{\max(|D_t|, \mathrm{min\_curvature})}$$

    where $h_t$ is `hessian_diagonal`.

    Args:
        decay: of the EMA of the curvature.
        min_curvature: lower bound of the curvature's size, in units of the gradient per unit of
            the parameter.

    Needs: `hessian_diagonal`, a tree like the gradient, such as Hutchinson's estimate: `z * Hz`
        for the Hessian `H` and random signs `z`.
    State: `4*size` bytes a leaf, `4` once.
    Flops: at most `16*size` a leaf, `20` once.
    Paper: Jahani et al., "Doubly Adaptive Scaled Algorithm for Machine Learning Using
        Second-Order Information", arXiv:2109.05198, its preconditioner.
    Departure: this is the direction alone; the paper also adapts the learning rate. $D_1$ is the
        first estimate; the paper averages several. The paper names no defaults: these lie in the
        ranges that it searches.
    Limits: near a saddle it flees along negative curvature as fast as it would approach along
        positive. An estimate from one batch is noisy: keep `decay` high.

    >>> tx, g = gk.scale_by_oasis(), jnp.array([2.0, -3.0, 1e-4])  # Newton's, but for signs
    >>> u, _ = tx.update(g, tx.init(g), hessian_diagonal=jnp.array([4.0, -6.0, 0.0]))
    >>> print(u.round(3))
    [ 0.5 -0.5  0.1]
    """
    name = "scale_by_oasis"
    check.interval(name, "[0, 1)", decay=decay)
    check.positive(name, min_curvature=min_curvature)

    def init(params: Params) -> OASISState:
        return OASISState(jnp.zeros([], jnp.int32), tree.zeros(params))

    def update(
        updates: Updates,
        state: OASISState,
        params: Params = None,
        *,
        hessian_diagonal: Updates = None,
        **extra: Extra,
    ) -> tuple[Updates, OASISState]:
        del params, extra
        shapes = [
            [x.shape for x in jax.tree.leaves(t)] for t in (hessian_diagonal, updates)
        ]
        check.holds(
            name,
            hessian_diagonal is not None and shapes[0] == shapes[1],
            "hessian_diagonal must be passed to update, with the gradient's shapes",
            shapes[0] if hessian_diagonal is not None else None,
            "Call tx.update(grads, state, params, hessian_diagonal=estimate).",
        )
        g = numbers.like(numbers.read(updates), state.curvature)
        h = numbers.like(numbers.read(hessian_diagonal), state.curvature)
        average = tree.ema(decay, state.curvature, h)
        curvature = jax.tree.map(
            lambda new, kept: jnp.where(state.count == 0, new, kept), h, average
        )

        def divide(g: jax.Array, d: jax.Array) -> jax.Array:
            return g / jnp.maximum(jnp.abs(d), min_curvature)

        u = jax.tree.map(divide, g, curvature)
        return numbers.like(u, updates), OASISState(
            numbers.increment(state.count), curvature
        )

    return transform(init, update)
