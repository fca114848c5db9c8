"""DoG: the learning rate is the distance travelled over the root of all squared gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, rate, report, tree
from gradkit._core.derivative import hypot, root
from gradkit._core.distance import from_start
from gradkit._core.factory import factory
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Rate,
    Transform,
    Updates,
    transform,
)


class DoGState(NamedTuple):
    """State of `step_by_dog`."""

    count: jax.Array  # updates so far, int32 []
    distance: jax.Array  # the largest distance from the anchor so far, []
    length: jax.Array  # root of the sum of squared gradient norms, []
    anchor: Updates  # the first parameters, 0 before the first update, like them


@factory
def step_by_dog(
    learning_rate: Rate = 1.0, *, first_distance: Hyper = 1e-6, eps: Hyper = 1e-8
) -> Transform:
    r"""Step against the gradient by the distance from the start over the root of all gradients.

    $$\bar r_t = \max(\bar r_{t-1}, \lVert p_{t-1} - p_0 \rVert), \qquad
      \bar r_0 = \mathrm{first\_distance} \, (1 + \lVert p_0 \rVert)$$
    $$G_t = G_{t-1} + \lVert g_t \rVert^2, \qquad
      u_t = -\mathrm{learning\_rate} \, \frac{\bar r_t}{\sqrt{G_t + \epsilon}} \, g_t$$

    Norms are over all leaves. What is to be evaluated is an average of the parameters:
    `gk.chain(gk.step_by_dog(), gk.average_params_by_polynomial())`.

    Args:
        learning_rate: multiplies the step, 1 in the paper; a number or a schedule.
        first_distance: the distance before the first step, as a fraction of `1 + norm` of the
            parameters; the authors advise 1e-4 with batch normalization.
        eps: added to the sum of squared norms.

    Needs: params.
    State: `4*size` bytes a leaf, `12` once.
    Flops: at most `24*size + 64` a leaf, `100` once.
    Paper: Ivgi, Hinder and Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size
        Schedule", arXiv:2302.12022.
    Departure: `p_0` is the first `params` that `update` sees. A non-finite entry of a gradient
        counts as zero.
    Limits: the last parameters are much worse than their average. The step only grows by moving:
        a schedule that warms up from 0 delays it. Gradients are never forgotten, so a spike
        shortens all steps after it. In groups of `optax.partition` distances and norms are those
        of the group.

    >>> tx, p = gk.step_by_dog(first_distance=0.5, eps=0.0), jnp.array([3.0, 4.0])
    >>> u, _ = tx.update(jnp.array([1e3, 0.0]), tx.init(p), p)
    >>> print(u)  # the first step is as long as the first distance, whatever the gradient
    [-3. -0.]
    """
    name = "step_by_dog"
    check.nonnegative(
        name, learning_rate=learning_rate, first_distance=first_distance, eps=eps
    )

    def init(params: Params) -> DoGState:
        zero = lambda: jnp.sum(tree.zero_per_leaf(params))
        count = jnp.zeros([], jnp.int32)
        return DoGState(count, zero(), zero(), tree.zeros(params))

    def update(
        updates: Updates, state: DoGState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, DoGState]:
        del extra
        check.given(name, params)
        g = numbers.read(updates)
        anchor, distance, length = from_start(
            state, g, params, first_distance, norms.of_tree
        )
        floor = root(jnp.asarray(eps, length.dtype))
        size = rate.at(learning_rate, state.count) * tree.ratio(
            distance, hypot(length, floor)
        )
        report.number("learning_rate", size)
        u = numbers.like(tree.scale(-size, g), updates)
        count = numbers.increment(state.count)
        return u, DoGState(count, distance, length, anchor)

    return transform(init, update)
