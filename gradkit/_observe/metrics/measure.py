"""Numbers of each update in the state: norms, clipping, skipped steps, the learning rate."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradkit._core import condition, numbers, report, steps
from gradkit._core.factory import factory
from gradkit._core.metrics import Event, MeasureState
from gradkit._core.report import Report, Reports
from gradkit._core.types import AnyTransform, Extra, Params, Transform, Updates


@factory
def measure(inner: AnyTransform) -> Transform:
    r"""Keep numbers of each update in the state, and change nothing of what `inner` does.

    $$u_t = \mathrm{inner}(g_t), \qquad
      \lVert g_t \rVert, \; \lVert u_t \rVert, \; \lVert p_{t-1} \rVert, \;
      \lVert u_t \rVert / \lVert p_{t-1} \rVert \text{ and what parts of inner report}$$

    `gk.metrics(state)` returns a flat dict of them: `gradient_norm`, `update_norm`, `param_norm`,
    `update_to_param`, and whether the gradient had a non-finite entry, `gradient_nonfinite`. Parts
    of `inner` report numbers too. A clip reports `clip_by_global_norm/clipped` and the smallest
    `factor` of any leaf or slice, a guard and `accumulate` report what was `skipped`, and
    `step_by_learning_rate` reports the `learning_rate`, also within recipes. Each group of `route`
    reports its own norms and parts, as `bias/gradient_norm`; the two groups of a recipe with
    `hidden=` have the names that `gk.routes` shows, as `matrices/learning_rate`. The second part
    of a name is numbered: `clip_by_zscore_2/clipped`.

    Args:
        inner: any transform. Put `measure` around a whole optimizer, so that the gradient is that
            of the loss and the update is that of the parameters.

    Needs: what `inner` needs. Without params in an update, `param_norm` and `update_to_param`
        stay as they are.
    State: `0` bytes a leaf, `32` once, the state of `inner`, and `4` for each number and `12` for
        each event that a part reports.
    Flops: at most `26*size + 40` a leaf, `100` once, and those of `inner`; as much again for
        the leaves of every group.
    Paper: none.
    Departure: none.
    Limits: `init` traces one update, which fixes the keys. Of a transform that cannot be updated
        without extra arguments besides `value`, such as `hessian_diagonal`, only the numbers of
        the whole are kept. A part that did not run, as in `accumulate`, keeps its last numbers. Parts inside of
        `optax.MultiSteps`, `optax.apply_if_finite` and `mask_by_saliency`, which run in a branch,
        report nothing: put `measure` inside. A non-finite entry counts as zero in norms. In
        `jax.shard_map` each device measures its own part. Barriers keep the compiler from rounding
        updates otherwise than without `measure`; on accelerators this is not tested.

    >>> tx = gk.measure(gk.sgd(0.5))
    >>> _, state = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)))
    >>> print({k: float(x) for k, x in gk.metrics(state).items() if k.endswith("e")})
    {'learning_rate': 0.5, 'gradient_nonfinite': 0.0}
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> MeasureState:
        inner_state = inner.init(params)
        number_names, event_names = _names(inner, params, inner_state)
        zero = lambda: jnp.zeros([], jnp.int32)
        blank = (
            {k: jnp.zeros([], jnp.float32) for k in number_names},
            {k: Event(zero(), zero(), zero()) for k in event_names},
        )
        first, events = condition.varying_as(blank, params)
        return MeasureState(zero(), first, events, inner_state)

    def update(
        updates: Updates, state: MeasureState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, MeasureState]:
        u, after, reports = _measured(inner, updates, state.inner, params, **extra)
        return u, MeasureState(
            numbers.increment(state.count),
            {k: _last(reports.numbers.get(k), x) for k, x in state.numbers.items()},
            {k: _counted(reports.events.get(k), x) for k, x in state.events.items()},
            after,
        )

    # keeps the class of `inner`, which marks transforms that round parameters
    return inner._replace(init=init, update=update)


def _measured(
    inner: Transform,
    updates: Updates,
    state: optax.OptState,
    params: Params,
    **extra: Extra,
) -> tuple[Updates, optax.OptState, Reports]:
    """The update of `inner`, its state, and all reports."""
    with report.collecting() as reports:
        u, after = inner.update(updates, state, params, **extra)
        report.sizes(updates, u, params)
        report.event("gradient_nonfinite", ~steps.all_finite(updates))
    return u, after, reports


def _names(
    inner: AnyTransform, params: Params, state: optax.OptState
) -> tuple[list[str], list[str]]:
    """The names of all numbers and of all events of one update, which is traced."""

    def reported(params: Params, state: optax.OptState, extra: Any) -> Any:
        tx = optax.with_extra_args_support(inner)
        reports = _measured(tx, params, state, params, **extra)[-1]
        return reports.numbers, reports.events

    for extra in ({}, {"value": jax.ShapeDtypeStruct([], jnp.float32)}):  # the loss
        try:
            found, happen = jax.eval_shape(reported, params, state, extra)
        except (TypeError, ValueError):  # `inner` needs others
            continue
        return [*found], [*happen]
    return _names(optax.identity(), params, optax.EmptyState())


def _last(new: Report | None, old: jax.Array) -> jax.Array:
    """The number of this update; the last one where its part did not run."""
    return old if new is None else jnp.where(new.made, new.value, old)


def _counted(new: Report | None, old: Event) -> Event:
    """The event, with this update counted where its part ran."""
    if new is None:
        return old._replace(last=jnp.zeros_like(old.last))
    happened = new.made & new.value
    return Event(
        condition.on_axes_of(happened.astype(jnp.int32), old.last),
        jnp.where(happened, numbers.increment(old.happened), old.happened),
        jnp.where(new.made, numbers.increment(old.updates), old.updates),
    )
