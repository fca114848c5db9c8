"""Skip steps whose gradient has a non-finite entry."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import condition, numbers, report, steps
from gradkit._core.factory import factory
from gradkit._core.types import AnyTransform, Extra, Params, Transform, Updates


class GuardState(NamedTuple):
    """State of `guard_by_finite`."""

    skipped: jax.Array  # steps skipped so far, int32 []
    skipped_in_a_row: jax.Array  # steps skipped since the last one made, int32 []
    inner: optax.OptState


@factory
def guard_by_finite(inner: AnyTransform) -> Transform:
    r"""Skip every step whose gradient has an infinite entry or one that is not a number.

    $$(u_t, s_t) = \begin{cases} \mathrm{inner}(g_t, s_{t-1}) & \text{all entries of } g_t
      \text{ are finite} \\ (0, s_{t-1}) & \text{else} \end{cases}$$

    The state of `inner` then stays as it is, its counters too. `optax.tree.get(state, "skipped")`
    is the number of skipped steps, and `"skipped_in_a_row"` that since the last step made, by
    which to end a run.

    Args:
        inner: any transform; a whole optimizer, so that nothing moves in a skipped step.

    Needs: what `inner` needs.
    State: `0` bytes a leaf, `8` once, and the state of `inner`.
    Flops: at most `3*size + 10` a leaf, `20` once, and those of `inner`.
    Paper: none.
    Departure: `optax.apply_if_finite` lets bad gradients through after a number in a row; here
        none ever passes, since one can destroy the parameters: watch the counter.
    Limits: one bad entry costs the step of all leaves. Without a guard, methods of gradkit count
        that entry as zero and make the step. In `jax.shard_map` each device looks at its own
        part.

    >>> tx = gk.guard_by_finite(optax.sgd(1.0))
    >>> p = jnp.zeros(2)
    >>> u, state = tx.update(jnp.array([1.0, jnp.nan]), tx.init(p))
    >>> print(u, state.skipped)
    [0. 0.] 1
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> GuardState:
        zeros = jnp.zeros([], jnp.int32), jnp.zeros([], jnp.int32)
        skipped, in_a_row = condition.varying_as(zeros, params)
        return GuardState(skipped, in_a_row, inner.init(params))

    def update(
        updates: Updates, state: GuardState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, GuardState]:
        good = steps.all_finite(updates)

        def step(s: optax.OptState) -> tuple[Updates, optax.OptState]:
            return inner.update(updates, s, params, **extra)

        u, inner_state = steps.mostly(good, step, updates, state.inner)
        again = numbers.increment(state.skipped_in_a_row)
        in_a_row = jnp.where(good, 0, again)
        report.skipping("guard_by_finite", good)
        report.number("guard_by_finite/skipped_in_a_row", in_a_row)
        after = GuardState(
            jnp.where(good, state.skipped, numbers.increment(state.skipped)),
            in_a_row,
            inner_state,
        )
        return u, after

    # keeps the class of `inner`, which marks transforms that round parameters
    return inner._replace(init=init, update=update)
