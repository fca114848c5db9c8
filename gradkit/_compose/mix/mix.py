"""The weighted sum of what several transforms make of one gradient."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers, rate
from gradkit._core.call import widened
from gradkit._core.factory import factory
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Params,
    Rate,
    Transform,
    Updates,
    wrapper,
)


class MixState(NamedTuple):
    """State of `mix`."""

    count: jax.Array  # updates so far, int32 []
    inner: tuple[optax.OptState, ...]


@factory
def mix(weights: Sequence[Rate], *transforms: AnyTransform) -> Transform:
    r"""Add up the directions that several transforms make of the same gradient.

    $$u_t = \sum_k \mathrm{weights}_k(t) \, f_k(g_t)$$

    Args:
        weights: of each transform a number, or a schedule of the updates made so far; they may
            be traced and need not add up to 1.
        transforms: one or more, ours or optax's; each sees the gradient as it is given here.

    Needs: what the transforms need; all get the same extra arguments.
    State: `0` bytes a leaf, `4` once, and the states of the transforms.
    Flops: at most `2*size*len(transforms)` a leaf, and those of the transforms.
    Paper: none.
    Departure: none.
    Limits: everything is computed in at least float32, and the sum has the dtype of the gradient.
        Every transform runs at every update, also one whose weight is 0. What should follow the
        sum, such as weight decay, comes after it in a chain. A leaf without a gradient takes the
        update of the first transform.

    >>> tx = gk.mix([0.5, -10.0], optax.scale(2.0), optax.sign_sgd(1.0))
    >>> p = jnp.zeros(2)
    >>> tx.update(jnp.array([3.0, -4.0]), tx.init(p))[0].tolist()
    [13.0, -14.0]
    """
    requirement, remedy = (
        "transforms must be one or more",
        "Write mix([0.5, 0.5], a, b), say.",
    )
    check.holds("mix", len(transforms) > 0, requirement, "none", remedy)
    factors = _checked(weights, len(transforms))
    inners = [optax.with_extra_args_support(tx) for tx in transforms]

    def init(params: Params) -> MixState:
        wide = numbers.wide(params)
        with widened():
            states = tuple(tx.init(wide) for tx in inners)
        return MixState(jnp.zeros([], jnp.int32), states)

    def update(
        updates: Updates, state: MixState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, MixState]:
        g, p = numbers.wide(numbers.opaque(updates)), numbers.wide(params)
        with widened():
            steps = [tx.update(g, s, p, **extra) for tx, s in zip(inners, state.inner)]
        weights_now = [rate.at(weight, state.count) for weight in factors]

        def leaf(*us: Any) -> Any:
            if not numbers.is_trained(us[0]):
                return us[0]
            parts = [jnp.asarray(w, u.dtype) * u for w, u in zip(weights_now, us)]
            return sum(parts[1:], start=parts[0])

        u = jax.tree.map(leaf, *[u for u, _ in steps])
        states = tuple(s for _, s in steps)
        return numbers.like(u, updates), MixState(
            numbers.increment(state.count), states
        )

    return wrapper(init, update)


def _checked(weights: Any, count: int) -> list[Rate]:
    """The weight of each transform, which is a number or a schedule."""
    is_list = isinstance(weights, Sequence) and not check.is_transform(weights)
    fits = is_list and len(weights) == count
    got = str(len(weights)) if is_list else type(weights).__name__
    requirement = f"weights must be a list of {count}, one for each transform"
    check.holds("mix", fits, requirement, got, "Write mix([0.5, 0.5], a, b), say.")
    factors = []
    for i, weight in enumerate(weights):
        name = f"weights[{i}]"
        if callable(weight):
            factors.append(rate.checked_schedule("mix", name, weight))
        else:
            check.number_or_schedule("mix", name, weight)
            factors.append(weight)
    return factors
