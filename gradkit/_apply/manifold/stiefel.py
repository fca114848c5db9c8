"""Riemannian AMSGrad on matrices with orthonormal rows or columns."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, derivative, norms, numbers, rate, report, tree
from gradkit._core.factory import factory
from gradkit._core.matrix import layout, linalg, stacks
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Rate,
    Transform,
    Updates,
    transform,
)


class StiefelState(NamedTuple):
    """State of `retract_by_stiefel`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # EMA of the tangent gradient, like the parameters
    nu: jax.Array  # root of the EMA of its squared norm, [leaves]
    most: jax.Array  # the largest `nu` so far, [leaves]


@factory
def retract_by_stiefel(
    learning_rate: Rate = 1e-3, *, b1: Hyper = 0.9, b2: Hyper = 0.999
) -> Transform:
    r"""Turn the gradient of an orthonormal matrix into an AMSGrad step that keeps it so.

    For $x$ with orthonormal rows (a tall leaf is transposed), $x x^T = I$, and the tangent
    part $P_x(z) = z - \frac{1}{2} (z x^T + x z^T) \, x$ of any $z$:

    $$g = P_x(\nabla), \quad m_t = b_1 P_x(m_{t-1}) + (1 - b_1) g, \quad
      v_t = b_2 v_{t-1} + (1 - b_2) \lVert g \rVert^2$$
    $$u = \mathrm{qf}\!\left(x - \mathrm{learning\_rate}_{t-1} \, m_t \, / \max_{s \le t}
      \sqrt{v_s}\right) - x$$

    with $\mathrm{qf}$ the orthonormal factor of a QR decomposition with positive diagonal.

    Args:
        learning_rate: the length of a step, for all entries of a matrix together; a number,
            or a schedule of the number of updates made before this one.
        b1: decay of the EMA of the gradient.
        b2: decay of the EMA of the squared norm.

    Needs: params. Takes gradients, turns their sign itself, and stands alone or last.
    State: `4*size + 8` bytes a leaf, `4` once.
    Flops: at most `16*size*min(rows, cols) + 80*size + 100` a leaf, `100` once.
    Paper: Bécigneul and Ganea, "Riemannian Adaptive Optimization Methods", arXiv:1810.00760,
        Figure 1a: Riemannian AMSGrad, each leaf a factor of the product.
    Departure: QR for the exponential map, and projection for parallel transport, as the paper
        allows and geoopt does.
    Limits: a matrix that does not start orthonormal becomes so with the first update. A square
        one keeps the sign of its determinant. A non-finite entry counts as zero. An update cannot
        be differentiated.

    >>> tx = gk.retract_by_stiefel(0.1)
    >>> p, g = jnp.eye(2, 3), jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    >>> q = p + tx.update(g, tx.init(p), p)[0]
    >>> bool(jnp.allclose(q @ q.T, jnp.eye(2), atol=1e-6))
    True
    """
    name = "retract_by_stiefel"
    check.nonnegative(name, learning_rate=learning_rate)
    check.interval(name, "[0, 1)", b1=b1, b2=b2)

    def init(params: Params) -> StiefelState:
        check.matrix(name, params)
        zeros = [tree.zero_per_leaf(params) for _ in range(2)]
        return StiefelState(jnp.zeros([], jnp.int32), tree.zeros(params), *zeros)

    def update(
        updates: Updates, state: StiefelState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, StiefelState]:
        del extra
        check.given(name, params)
        gs, structure = jax.tree.flatten(numbers.read(updates))
        ps, ms = jax.tree.leaves(numbers.read(params)), jax.tree.leaves(state.mu)
        xs = [layout.fat(p).astype(m.dtype) for p, m in zip(ps, ms)]
        gs = [numbers.summable(g, g.size).astype(m.dtype) for m, g in zip(ms, gs)]
        gs = [tangent(x, layout.fat(g)) for x, g in zip(xs, gs)]
        ms = [tangent(x, layout.fat(m)) for x, m in zip(xs, ms)]
        ms = tree.ema(b1, ms, gs)

        nu = tree.ema_rms(b2, state.nu, norms.of_leaves(gs).astype(state.nu.dtype))
        most = jnp.maximum(state.most, nu)
        length = rate.at(learning_rate, state.count)
        report.number("learning_rate", length)
        steps = (length * tree.ratio(m, n.astype(m.dtype)) for m, n in zip(ms, most))
        reached = [x - step.astype(x.dtype) for x, step in zip(xs, steps)]
        reached = derivative.refuse(name, reached)
        us = [
            y - x
            for y, x in zip(stacks.map_shapes(linalg.orthonormal_rows, reached), xs)
        ]

        def shape(matrices: list[jax.Array]) -> Updates:
            return structure.unflatten(map(layout.from_fat, matrices, ps))

        new = StiefelState(numbers.increment(state.count), shape(ms), nu, most)
        return numbers.like(shape(us), updates), new

    return transform(init, update)


def tangent(x: jax.Array, z: jax.Array) -> jax.Array:
    """The projection of `z` onto the tangent space at `x`, whose rows are orthonormal."""
    largest = numbers.divisible(norms.along(z, (-2, -1)))
    z = z / largest
    half = jnp.matmul(z, x.mT, precision=jax.lax.Precision.HIGHEST) / 2
    inside = jnp.matmul(half + half.mT, x, precision=jax.lax.Precision.HIGHEST)
    return largest * (z - inside)
