"""SMB: where a gradient step does not lower the loss enough, the step of a quadratic model."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import averages, check, condition, norms, numbers, rate, report, tree
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

NAME = "step_by_model_building"


class ModelBuildingState(NamedTuple):
    """State of `step_by_model_building`."""

    count: jax.Array  # updates so far, int32 []


@factory
def step_by_model_building(
    learning_rate: Rate = 1.0, *, decrease: Hyper = 0.1, eta: Hyper = 0.99
) -> Transform:
    r"""Step against the gradient, or where the loss stays too high to the least point of a model of it.

    $$s = -\mathrm{learning\_rate} \; g, \qquad u = s \quad \text{where} \quad f(p + s) \le
      \mathrm{value} - \mathrm{decrease} \cdot \mathrm{learning\_rate} \, \lVert g \rVert^2$$

    and else, with $y = \nabla f(p + s) - g$ and $r = \lVert y \rVert / \lVert g \rVert$ of each
    leaf,

    $$u = -\mathrm{learning\_rate} \, \frac{q\, g + y}{q^2 - r^2}, \qquad
      q = r + 1 / \mathrm{eta}$$

    This is the least point of the quadratic model of the loss that has the gradient $g$ at $p$ and
    $g + y$ at $p + s$, held within a trust region that $y$ sizes. The test is of all leaves, the
    model of each one.

    Args:
        learning_rate: of the gradient step; a number or a schedule.
        decrease: by how much the loss must fall, as a fraction of what its slope promises.
        eta: the largest fraction of the gradient step that the model's step may keep where the
            gradient does not change, below 1.

    Needs: params; `value`, the loss of the batch of the gradient; and `value_fn`, the loss of the
        same batch as a function of parameters, as optax's line searches take it: it gets the other
        keyword arguments that it names.
    State: `0` bytes a leaf, `4` once.
    Flops: at most `60*size + 200` a leaf, `100` once, and `value_fn` twice besides.
    Paper: Birbil, Martin, Onay and Öztoprak, "Bolstering Stochastic Gradient Descent with Model
        Building", arXiv:2111.07058, SMB.
    Departure: the paper's three coefficients of $g$, $y$ and $s$ are added up, as $s$ is a multiple
        of $g$. A leaf is a group of parameters, and stays where its gradient is 0. There is no
        schedule of the authors' own, and no second batch (SMBi). A non-finite entry of a gradient
        counts as zero, and a loss that is not finite as one that did not fall.
    Limits: an update costs one more loss, and where that is too high one more gradient. Dropout
        must be the same in `value` and `value_fn`. Jit the training step: a function that is passed
        to an update cannot be compiled with it from outside. In groups of `optax.partition` the
        parameters are those of the group.

    >>> f, tx = lambda p: 2.0 * jnp.sum(p**2), gk.step_by_model_building(1.0, eta=0.5)
    >>> p = jnp.array([1.0, -1.0])  # the gradient step ends at three times the distance
    >>> u, _ = tx.update(jax.grad(f)(p), tx.init(p), p, value=f(p), value_fn=f)
    >>> print((p + u).round(3))
    [ 0.6 -0.6]
    """
    check.nonnegative(NAME, learning_rate=learning_rate)
    check.interval(NAME, "[0, 1)", decrease=decrease)
    check.interval(NAME, "(0, 1)", eta=eta)

    def init(params: Params) -> ModelBuildingState:
        del params
        return ModelBuildingState(jnp.zeros([], jnp.int32))

    def update(
        updates: Updates,
        state: ModelBuildingState,
        params: Params = None,
        *,
        value: jax.Array | None = None,
        value_fn: Callable[..., Any] | None = None,
        **extra: Extra,
    ) -> tuple[Updates, ModelBuildingState]:
        check.given(NAME, params)
        check.loss(NAME, value)
        loss = _of_params(value_fn, {"value": value, **extra})
        g = numbers.read(updates)
        eta_t, norm = rate.at(learning_rate, state.count), norms.of_tree(g)
        report.number("learning_rate", jnp.asarray(eta_t, norm.dtype))
        step = tree.scale(-eta_t, g)
        trial = numbers.like(averages.after(params, step), params)
        most = jnp.asarray(value).astype(norm.dtype) - decrease * eta_t * norm * norm
        after = jnp.asarray(loss(trial)).astype(norm.dtype)
        want = "value_fn must return one number"
        check.holds(NAME, after.shape == (), want, after.shape, "Return its mean.")
        falls = (after <= most) & jnp.isfinite(after) & jnp.isfinite(most)
        report.number(f"{NAME}/accepted", falls.astype(norm.dtype))

        def bend(step: Updates) -> Updates:
            del step
            at_end = numbers.like(numbers.read(jax.grad(loss)(trial)), g)
            return jax.tree.map(lambda g, e: _bent(g, e, eta_t, eta), g, at_end)

        u = condition.when(~falls, bend, step)
        count = numbers.increment(state.count)
        return numbers.like(u, updates), ModelBuildingState(count)

    return transform(init, update)


def _of_params(value_fn: Any, extra: Any) -> Callable[[Params], jax.Array]:
    """The loss as a function of parameters alone."""
    remedy = "Call tx.update(grads, state, params, value=loss, value_fn=f)."
    want = "value_fn, the loss as a function of params, must be passed to update"
    check.holds(NAME, callable(value_fn), want, value_fn, remedy)
    names = list(inspect.signature(value_fn).parameters)[1:]
    return lambda params: value_fn(params, **{k: extra[k] for k in names if k in extra})


def _bent(g: jax.Array, end: jax.Array, learning_rate: Any, eta: Any) -> jax.Array:
    """The model's step of one leaf, by its gradients at both ends of the gradient step."""
    y = end - g
    norm = norms.of_tree(g)
    r = norms.of_tree(y) * numbers.inverse(norm)
    q = r + 1 / eta
    rest = (q + r) / eta  # q^2 - r^2, without the squares
    u = -learning_rate * (q / rest * g + y / rest)
    return jnp.where(norm > 0, u, 0).astype(g.dtype)
