"""A transform whose state is reset from time to time, wholly or in part."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers
from gradkit._core.factory import factory
from gradkit._core.paths import leaf_paths, map_with_path
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Hyper,
    Params,
    Transform,
    Updates,
    wrapper,
)


class ResetState(NamedTuple):
    """State of `reset_by_period`."""

    count: jax.Array  # updates so far, int32 []
    inner: optax.OptState


@factory
def reset_by_period(
    inner: AnyTransform, *, every: Hyper = 1000, only: str = ""
) -> Transform:
    r"""Let `inner` begin again after every so many updates.

    $$s_{t-1} \leftarrow \begin{cases} \mathrm{inner.init}(p_{t-1})
      & \mathrm{every} \text{ divides } t - 1 \\ s_{t-1} & \text{else} \end{cases}, \qquad
      u_t, s_t = \mathrm{inner}(g_t, s_{t-1}, p_{t-1})$$

    Args:
        inner: any transform. Its counters begin again with its EMAs, so these are
            bias-corrected as in the first updates.
        every: updates between two resets.
        only: regular expression; only parts of the state of `inner` whose path contains it are
            reset, such as `mu` or `0/mu/decoder`. By default all.

    Needs: params, and what `inner` needs.
    State: `0` bytes a leaf, `4` once, and the state of `inner`.
    Flops: at most `4*size` a leaf, `8` once, and those of `inner`.
    Paper: Huang et al., "SPAM: Spike-Aware Adam with Momentum Reset for Stable LLM Training",
        arXiv:2501.06842, its momentum reset.
    Departure: takes any `inner`. The paper also raises the learning rate anew after a reset:
        give it a schedule of this period.
    Limits: the state of a whole chain includes the counters of its schedules: reset the direction
        inside the chain, or name a part with `only`. EMAs reset without their counter, as by
        `mu|nu`, are not bias-corrected, and too small at first.

    >>> tx = gk.reset_by_period(gk.average_by_heavy_ball(1 / 2), every=2)
    >>> p, state = jnp.float32(0.0), tx.init(jnp.float32(0.0))
    >>> for _ in range(3): u, state = tx.update(jnp.float32(4.0), state, p); print(u)
    4.0
    6.0
    4.0
    """
    check.positive("reset_by_period", every=every)
    check.expression("reset_by_period", "only", only)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> ResetState:
        state = inner.init(params)
        paths = leaf_paths(state)
        check.holds(
            "reset_by_period",
            not jax.tree.leaves(params) or any(re.search(only, x) for x in paths),
            f"only = {only!r} must be found in the path of a part of the state",
            paths,
            "Name one of these, or leave it out to reset all.",
        )
        return ResetState(jnp.zeros([], jnp.int32), state)

    def update(
        updates: Updates, state: ResetState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, ResetState]:
        check.given("reset_by_period", params)
        again = state.count % every == 0

        def renew(path: str, old: Any, new: Any) -> Any:
            return jnp.where(again, new, old) if re.search(only, path) else old

        before = map_with_path(renew, state.inner, inner.init(params))
        u, after = inner.update(updates, before, params, **extra)
        return u, ResetState(numbers.increment(state.count), after)

    return wrapper(init, update)
