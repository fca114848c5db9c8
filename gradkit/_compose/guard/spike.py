"""Skip steps whose gradient norm or loss stands out from those before them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import (
    check,
    condition,
    norms,
    numbers,
    percentile,
    report,
    steps,
    tree,
)
from gradkit._core.factory import factory
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Hyper,
    Params,
    Transform,
    Updates,
)

MAD_TO_STD = 1.4826  # standard deviation over median absolute deviation, if normal


class Recent(NamedTuple):
    """A ring buffer of norms or losses."""

    seen: jax.Array  # numbers kept so far, int32 []
    last: jax.Array  # the last of them, [window]; unused slots are zero


class SpikeGuardState(NamedTuple):
    """State of `guard_by_spike`."""

    skipped: jax.Array  # steps skipped so far, int32 []
    skipped_in_a_row: jax.Array  # steps skipped since the last one made, int32 []
    norms: Recent  # of gradients
    values: Recent  # losses
    inner: optax.OptState


@factory
def guard_by_spike(
    inner: AnyTransform,
    *,
    window: int = 128,
    max_deviations: Hyper = 6.0,
    floor: Hyper = 0.01,
) -> Transform:
    r"""Skip every step whose gradient norm or loss is far above the median of the last ones.

    $$\mu_t = \mathrm{median}(x_{t-\mathrm{window}}, \dots, x_{t-1}), \quad
      \sigma_t = 1.4826 \, \mathrm{median}_j |x_j - \mu_t| + \mathrm{floor} \, |\mu_t|$$
    $$(u_t, s_t) = \begin{cases} (0, s_{t-1}) & x_t > \mu_t +
      \mathrm{max\_deviations} \, \sigma_t \\ \mathrm{inner}(g_t, s_{t-1}) & \text{else} \end{cases}
      \qquad x_t = \lVert g_t \rVert \text{ or } \mathrm{value}_t$$

    The norm is always tested, and the loss where it is given; either is enough to skip. A skipped
    spike still enters the window, so a new level passes after half a window of steps, and no run
    stalls. Unlike a mean, the medians hardly move for a few spikes. No step is skipped as a spike
    before half of the window is filled. A step with a non-finite norm, loss or entry of the
    gradient is always skipped, and does not enter the window; nor does a norm or loss of zero.

    Args:
        inner: any transform; a whole optimizer, so that nothing moves in a skipped step.
        window: how many of the last norms and losses are kept.
        max_deviations: how many standard deviations above the median still pass.
        floor: added to the deviation, as a fraction of the median, so that in a window of equal
            numbers a slightly larger one passes.

    Needs: what `inner` needs. `value`, where given, is the loss that is tested; `global_norm`,
        where given and finite, stands for the norm of the gradient.
    State: `0` bytes a leaf, `16 + 8*window` once, and the state of `inner`.
    Flops: at most `16*size + 40` a leaf, `400 + 200*window` once, and those of `inner`.
    Paper: none. The rule and its defaults are those of OLMo-core's `SkipStepOptimizer` and of
        levanter's `SkipStepConfig`.
    Departure: they take the mean and the standard deviation, which a spike raises while it is in
        the window; a NaN there makes them skip until it has left.
    Limits: to shorten gradients instead, put `clip_by_zscore` or `clip_by_percentile` in
        `inner`. The norms are those of what arrives here: put the guard outermost. A jump that lasts,
        as of a new data set, costs up to half a window of steps. Losses that differ more between
        batches than over time need a larger `max_deviations`.

    >>> tx = gk.guard_by_spike(optax.sgd(1.0), window=4)
    >>> state, step = tx.init(jnp.float32(0.0)), jax.jit(tx.update)
    >>> print([float(-step(jnp.float32(g), state)[0]) for g in (1.0, 50.0)])  # no window yet
    [1.0, 50.0]
    """
    if not isinstance(window, jax.Array):  # under optax.inject_hyperparams
        check.count("guard_by_spike", window=window)
    check.nonnegative("guard_by_spike", max_deviations=max_deviations, floor=floor)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SpikeGuardState:
        check.concrete("guard_by_spike", window=window)
        dtype = tree.zero_per_leaf(_real(params)).dtype
        zero = lambda: jnp.zeros([], jnp.int32)
        recent = lambda: Recent(zero(), jnp.zeros(window, dtype))
        blank = zero(), zero(), recent(), recent()
        skipped, in_a_row, of_norms, of_values = condition.varying_as(blank, params)
        return SpikeGuardState(
            skipped, in_a_row, of_norms, of_values, inner.init(params)
        )

    def update(
        updates: Updates,
        state: SpikeGuardState,
        params: Params = None,
        *,
        value: jax.Array | None = None,
        global_norm: jax.Array | None = None,
        **extra: Extra,
    ) -> tuple[Updates, SpikeGuardState]:
        norm = norms.given_or(norms.of_tree(_real(updates)), global_norm)
        pairs = [(state.norms, norm)]
        if value is not None:
            pairs.append((state.values, jnp.asarray(value)))
            extra["value"] = value
        if global_norm is not None:
            extra["global_norm"] = global_norm

        xs = [jax.lax.stop_gradient(x).astype(recent.last.dtype) for recent, x in pairs]
        finite = steps.all_finite((updates, xs))
        usual = [x <= _limit(y, max_deviations, floor) for (y, _), x in zip(pairs, xs)]
        good = functools.reduce(jnp.logical_and, usual, finite)
        kept = [_appended(recent, x, finite) for (recent, _), x in zip(pairs, xs)]

        def step(s: optax.OptState) -> tuple[Updates, optax.OptState]:
            return inner.update(updates, s, params, **extra)

        u, inner_state = steps.mostly(good, step, updates, state.inner)
        one_more = numbers.increment(state.skipped_in_a_row)
        in_a_row = jnp.where(good, 0, one_more)
        report.skipping("guard_by_spike", good)
        report.number("guard_by_spike/skipped_in_a_row", in_a_row)
        after = SpikeGuardState(
            jnp.where(good, state.skipped, numbers.increment(state.skipped)),
            in_a_row,
            kept[0],
            kept[1] if kept[1:] else state.values,
            inner_state,
        )
        return u, after

    # keeps the class of `inner`, which marks transforms that round parameters
    return inner._replace(init=init, update=update)


def _real(t: Any) -> list[Any]:
    """The leaves of `t` that are arrays of real floats."""
    return [x for x in jax.tree.leaves(t) if numbers.is_real(x)]


def _limit(recent: Recent, max_deviations: Hyper, floor: Hyper) -> jax.Array:
    """The largest number that passes; all do until half of the window is filled."""
    size = recent.last.size
    kept = jnp.minimum(recent.seen, size)
    center = percentile.of_first(recent.last, kept, 50.0)
    deviation = percentile.of_first(jnp.abs(recent.last - center), kept, 50.0)
    width = MAD_TO_STD * deviation + floor * jnp.abs(center)
    enough = recent.seen >= max(size // 2, 1)
    most = jnp.finfo(recent.last.dtype).max
    return jnp.where(enough, center + max_deviations * width, most)


def _appended(recent: Recent, x: jax.Array, finite: jax.Array) -> Recent:
    """`recent` with `x` in it, if the step is `finite` and `x` is not zero."""
    slots = jnp.arange(recent.last.size, dtype=jnp.int32)
    counts = finite & (x != 0)
    newest = (slots == recent.seen % recent.last.size) & counts
    seen = jnp.where(counts, numbers.increment(recent.seen), recent.seen)
    return Recent(seen, jnp.where(newest, x, recent.last))
