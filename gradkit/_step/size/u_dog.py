"""U-DoG: an accelerated step whose length is the distance travelled over the gradients' change."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import averages, check, norms, numbers, rate, report, tree
from gradkit._core.averages import AverageState
from gradkit._core.derivative import hypot
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


class UDoGState(NamedTuple):
    """State of `step_by_u_dog`; what is like the parameters is 0 before the first update."""

    distance: jax.Array  # the largest distance from the anchor before this step, []
    reached: jax.Array  # the largest distance from the anchor so far, []
    weight: jax.Array  # of this step: the sum of the distances of all so far, []
    total: jax.Array  # the sum of the weights of all steps, []
    change: jax.Array  # root of the sum of squares of alpha * norm(g - m), []
    largest: jax.Array  # the largest alpha * norm(m), []
    anchor: Params  # the first parameters, like them
    y: Params  # the iterate that both halves of a step start from, like the parameters
    m: Updates  # the gradient of the first half, like the parameters
    x: AverageState  # the weighted average of the iterates x, like the parameters


@factory
def step_by_u_dog(
    learning_rate: Rate = 1.0, *, first_distance: Hyper = 1e-6
) -> Transform:
    r"""Step twice from one iterate, the second time by the gradient of the first one's average.

    $$\bar r_t = \max_{k \le t} \max(\bar r_0, \lVert x_k - p_0 \rVert, \lVert y_k - p_0 \rVert), \quad
      \bar r_0 = \mathrm{first\_distance} \, (1 + \lVert p_0 \rVert), \quad
      \omega_t = \sum_{k \le t} \bar r_k, \quad \alpha_t = \omega_t / \bar r_t$$
    $$\bar x_t = \frac{\sum_{k \le t} \omega_k x_{k+1}}{\sum_{k \le t} \omega_k}, \quad
      m_t = \nabla f\left(\bar x_{t-1} + \frac{\omega_t}{\sum_{k \le t} \omega_k}
      (y_t - \bar x_{t-1})\right), \quad g_t = \nabla f(\bar x_t)$$
    $$x_{t+1} = y_t - \alpha_t \frac{\bar r_t}{\sqrt{Q_{t-1} + M_t}} m_t, \quad
      y_{t+1} = y_t - \alpha_t \frac{\bar r_t}{\sqrt{Q_t + M_t}} g_t$$
    $$Q_t = \sum_{k \le t} \alpha_k^2 \lVert g_k - m_k \rVert^2, \quad
      M_t = \max_{k \le t} \alpha_k^2 \lVert m_k \rVert^2$$

    A step is two updates, so that each needs one gradient: the first takes $m_t$ and puts the
    parameters on $\bar x_t$, the second takes $g_t$ and puts them where $m_{t+1}$ is asked for.
    Each may have a batch of its own. Norms are over all leaves. What is to be evaluated is
    $\bar x$, which is `gk.eval_params(state, params)` from the state of any chain.

    Args:
        learning_rate: multiplies both steps, 1 in the paper; a number or a schedule of updates.
        first_distance: the distance before the first step, as a fraction of `1 + norm` of the
            parameters.

    Needs: params.
    State: `16*size` bytes a leaf, `28` once.
    Flops: at most `60*size + 200` a leaf, `300` once.
    Paper: Kreisler, Ivgi, Hinder and Carmon, "Accelerated Parameter-Free Stochastic Optimization",
        arXiv:2404.00666, U-DoG.
    Departure: the paper proves its bounds with larger denominators, which have constants,
        logarithms and a confidence level besides. Here they are the sums alone, as DoG's are those
        of its theory without these factors; $M_t$ keeps $x_{t+1}$ within $\bar r_t$ of $y_t$. No
        code of the authors is public to compare with. Nothing is projected. `p_0` is the first
        `params` that `update` sees. A non-finite entry of a gradient counts as zero.
    Limits: last in a chain, of gradients as they are: parameters that other transforms move are put
        back, and momentum would mix the two points. Strong on convex losses; on networks the
        paper's own results are mixed. The state holds parameters: do not keep it in few
        bits by a `store_by_`.

    >>> tx, p = gk.step_by_u_dog(first_distance=0.5), jnp.array([3.0, 4.0])
    >>> u, state = tx.update(jnp.array([1e3, 0.0]), tx.init(p), p)
    >>> print(u)  # the first step is as long as the first distance, whatever the gradient
    [-3.  0.]
    """
    name = "step_by_u_dog"
    check.nonnegative(name, learning_rate=learning_rate, first_distance=first_distance)

    def init(params: Params) -> UDoGState:
        zero = lambda: jnp.sum(tree.zero_per_leaf(params))
        zeros = lambda: tree.zeros(params)
        average = AverageState(jnp.zeros([], jnp.int32), zeros())
        sums = zero(), zero(), zero(), zero(), zero(), zero()
        return UDoGState(*sums, zeros(), zeros(), zeros(), average)

    def update(
        updates: Updates, state: UDoGState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, UDoGState]:
        del extra
        check.given(name, params)
        count, p = state.x.count, numbers.like(params, state.anchor)
        start, is_first = count == 0, count % 2 == 0

        def where(condition: jax.Array, x: Params, y: Params) -> Params:
            return jax.tree.map(lambda x, y: jnp.where(condition, x, y), x, y)

        kept = state.anchor, state.y, state.x.average
        anchor, y, x = (where(start, p, t) for t in kept)
        g = numbers.like(numbers.read(updates), state.m)
        m = where(is_first, g, state.m)

        far = (first_distance * (1 + norms.of_tree(p))).astype(state.distance.dtype)
        distance = jnp.where(start, far, state.distance)
        weight = state.weight + jnp.where(is_first, distance, 0)
        total = state.total + jnp.where(is_first, weight, 0)
        alpha = tree.ratio(weight, distance)
        most = jnp.finfo(alpha.dtype).max
        fresh = jax.tree.map(lambda g, m: jnp.where(is_first, g, g - m), g, m)
        length = jnp.minimum(alpha * norms.of_tree(fresh), most)
        largest = jnp.maximum(state.largest, jnp.where(is_first, length, 0))
        change = hypot(state.change, jnp.where(is_first, 0, length))
        change = jnp.minimum(change, most)

        size = rate.at(learning_rate, count) * alpha
        size *= tree.ratio(distance, jnp.minimum(hypot(change, largest), most))
        report.number("learning_rate", size)
        moved = jax.tree.map(lambda y, g: (y - size * g).astype(y.dtype), y, g)
        y = where(is_first, y, moved)
        x = where(is_first, averages.toward(x, moved, _fraction(weight, total)), x)

        from_anchor = jax.tree.map(lambda x, x0: x - x0, moved, anchor)
        farthest = norms.of_tree(from_anchor).astype(distance.dtype)
        reached = jnp.maximum(jnp.maximum(state.reached, distance), farthest)
        distance = jnp.where(is_first, distance, reached)
        next_weight = weight + distance
        between = averages.toward(x, y, _fraction(next_weight, total + next_weight))
        target = where(is_first, x, between)

        u = jax.tree.map(lambda x, p: x - p, target, p)
        average = AverageState(numbers.increment(count), x)
        sums = distance, reached, weight, total, change, largest
        return numbers.like(u, updates), UDoGState(*sums, anchor, y, m, average)

    return transform(init, update)


def _fraction(weight: jax.Array, total: jax.Array) -> jax.Array:
    """The part of a weight in a total; 1 of nothing."""
    return jnp.where(total > 0, weight / jnp.where(total > 0, total, 1), 1)
