"""L-DoG: DoG in which every leaf has its own distance, gradients and step."""

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


class LayerDoGState(NamedTuple):
    """State of `step_by_layer_dog`."""

    count: jax.Array  # updates so far, int32 []
    distance: jax.Array  # the largest distance of each leaf so far, [leaves]
    length: jax.Array  # root of the sum of squared gradient norms, [leaves]
    anchor: Updates  # the first parameters, 0 before the first update, like them


@factory
def step_by_layer_dog(
    learning_rate: Rate = 1.0, *, first_distance: Hyper = 1e-6, eps: Hyper = 1e-8
) -> Transform:
    r"""Step against each leaf's gradient by its distance from its start over its gradients' root.

    $$\bar r_t = \max(\bar r_{t-1}, \lVert p_{t-1} - p_0 \rVert), \qquad
      \bar r_0 = \mathrm{first\_distance} \, (1 + \lVert p_0 \rVert)$$
    $$G_t = G_{t-1} + \lVert g_t \rVert^2, \qquad
      u_t = -\mathrm{learning\_rate} \, \frac{\bar r_t}{\sqrt{G_t + \epsilon}} \, g_t$$

    Norms are over one leaf, where those of `step_by_dog` are over all. What is to be evaluated is
    an average of the parameters:
    `gk.chain(gk.step_by_layer_dog(), gk.average_params_by_polynomial())`.

    Args:
        learning_rate: multiplies the step, 1 in the paper; a number or a schedule.
        first_distance: the distance before the first step, as a fraction of `1 + norm` of the
            leaf; the authors advise 1e-4 with batch normalization.
        eps: added to the sum of squared norms.

    Needs: params.
    State: `4*size + 8` bytes a leaf, `4` once.
    Flops: at most `24*size + 160` a leaf.
    Paper: Ivgi, Hinder and Carmon, "DoG is SGD's Best Friend: A Parameter-Free Dynamic Step Size
        Schedule", arXiv:2302.12022, L-DoG.
    Departure: each leaf is a layer, as in the authors' code. `p_0` is the first `params` that
        `update` sees. A non-finite entry of a gradient counts as zero.
    Limits: the last parameters are much worse than their average. A leaf that starts at 0 has a
        first step of length `first_distance`. A spike of a leaf's gradient shortens all of its
        steps after it.

    >>> tx, p = gk.step_by_layer_dog(first_distance=0.5, eps=0.0), {"a": 3.0, "b": 0.0}
    >>> p = jax.tree.map(jnp.float32, p)
    >>> u, _ = tx.update({"a": jnp.float32(1e3), "b": jnp.float32(1.0)}, tx.init(p), p)
    >>> print(u["a"], u["b"])  # a leaf's first step is as long as its first distance
    -2.0 -0.5
    """
    name = "step_by_layer_dog"
    check.nonnegative(
        name, learning_rate=learning_rate, first_distance=first_distance, eps=eps
    )

    def init(params: Params) -> LayerDoGState:
        zero = lambda: tree.zero_per_leaf(params)
        count = jnp.zeros([], jnp.int32)
        return LayerDoGState(count, zero(), zero(), tree.zeros(params))

    def update(
        updates: Updates, state: LayerDoGState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, LayerDoGState]:
        del extra
        check.given(name, params)
        g = numbers.read(updates)
        anchor, distance, length = from_start(
            state, g, params, first_distance, norms.of_leaves
        )
        floor = root(jnp.asarray(eps, length.dtype))
        size = rate.at(learning_rate, state.count) * tree.ratio(
            distance, hypot(length, floor)
        )
        if report.is_collecting():
            report.number(f"{name}/least_rate", jnp.min(size, initial=jnp.inf))
            report.number(f"{name}/largest_rate", jnp.max(size, initial=0))
        u = numbers.like(tree.scale_each(-size, g), updates)
        count = numbers.increment(state.count)
        return u, LayerDoGState(count, distance, length, anchor)

    return transform(init, update)
