"""`chain`: transforms in sequence, computed in at least float32 and rounded once at the end."""

import contextlib
from collections.abc import Sequence
from typing import Any, cast

import optax

from gradkit._core import check, numbers
from gradkit._core.call import widened
from gradkit._core.factory import factory, factory_of
from gradkit._core.types import (
    KINDS,
    AnyTransform,
    Averaging,
    Extra,
    Params,
    Rounding,
    Stepping,
    Transform,
    Updates,
    kind_of,
    wrapper,
)

AVERAGING = KINDS.index(Averaging)


@factory
def chain(*transforms: AnyTransform) -> Transform:
    r"""Apply transforms in order, and round the update once, to the dtype of the parameters.

    $$u = \mathrm{round}(f_n(\dots f_2(f_1(\mathrm{float32}(g)))))$$

    Its state is that of `optax.chain`. In `optax.chain` each transform rounds to the dtype of its
    input, so gradients in bfloat16 are rounded at every stage. `gradkit.chain` first casts
    gradients and parameters to at least float32. Every transform then sees the full precision of
    the one before, and keeps its state at that precision.

    Args:
        transforms: of gradkit or optax. A chain inside a chain gets float32, so it rounds nothing.

    Needs: the arguments that the transforms need; all get the same extra arguments.
    Errors: a `round_by_` that is not last; an `average_params_by_` with anything but a `round_by_`
        after it, as it would see other updates than the parameters; two parts that turn the
        sign, such as `adamw` and `step_by_learning_rate`. Parts of optax are not known so.
    Limits: the update has the dtype of the parameters if these are given, else that of the
        gradient. After a `round_by_`, which rounds the parameters itself, the update stays in
        float32. To keep the gradient's dtype at every stage, use `optax.chain`.

    >>> p, g = jnp.zeros(2), jnp.ones(2, jnp.bfloat16)
    >>> tx = gk.chain(gk.scale_by_adam(), gk.step_by_learning_rate(1e-3))
    >>> print(tx.update(g, tx.init(p), p)[0])  # no digit of bfloat16's -0.00099945 is left
    [-0.001 -0.001]
    """
    requirement = "transforms must be one or more"
    check.holds("chain", len(transforms) > 0, requirement, "none", "Pass at least one.")
    for tx in transforms[:-1]:
        requirement = "a transform that rounds parameters must be the last one"
        holds = not isinstance(tx, Rounding)
        check.holds("chain", holds, requirement, "one before", "Move it to the end.")
    _check_order(transforms)
    rounds = isinstance(transforms[-1], Rounding)
    txs = [optax.with_extra_args_support(tx) for tx in transforms]
    last = len(txs) - rounds  # from here on parameters keep their own dtype

    def init(params: Params) -> tuple[Any, ...]:
        wide = numbers.wide(params)
        with _widened(wide, params):
            states = [tx.init(wide) for tx in txs[:last]]
        return *states, *(tx.init(params) for tx in txs[last:])

    def update(
        updates: Updates, state: Any, params: Params = None, **extra: Extra
    ) -> tuple[Updates, Any]:
        wide, states = numbers.wide(params), []
        stages = [*zip(txs, state, strict=True)]
        u = numbers.wide(numbers.opaque(updates))
        with _widened(wide, params):
            for tx, s in stages[:last]:
                u, s = tx.update(u, s, wide, **extra)
                states.append(s)
        if rounds:
            tx, s = stages[last]
            u, s = tx.update(u, s, params, **extra)
            return u, (*states, s)
        return numbers.like(u, updates if params is None else params), (*states,)

    kind = KINDS[max(map(kind_of, transforms))]
    return cast(Transform, kind(*wrapper(init, update)))


def _check_order(transforms: Sequence[AnyTransform]) -> None:
    """Check that one part at most turns the sign, and that nothing moves what an average saw."""
    step = average = None
    for tx in transforms:
        if average is not None and not (kind_of(tx) >= AVERAGING or _is_identity(tx)):
            what = "an average of parameters must have nothing but a round_by_ after it"
            got = f"{_name(tx)} after {_name(average)}"
            check.holds("chain", False, what, got, "Move the average behind it.")
        if step is not None and isinstance(tx, Stepping):
            what = "one part must turn the sign, so that the loss falls"
            got = f"{_name(tx)} after {_name(step)}, which turn it twice"
            check.holds("chain", False, what, got, "Leave one of them out.")
        step = tx if isinstance(tx, Stepping) else step
        average = tx if isinstance(tx, Averaging) else average


def _is_identity(tx: AnyTransform) -> bool:
    return getattr(tx.update, "__qualname__", "").startswith("identity.")


def _name(tx: AnyTransform) -> str:
    """The factory that made a transform, as far as it is known."""
    ours = tx.init.__module__.startswith("gradkit.")
    made_by = factory_of(tx) or (tx.init if ours else tx.update)
    name = getattr(made_by, "__qualname__", "a transform")
    return name.partition(".")[0]


def _widened(wide: Params, params: Params) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if wide is params else widened()
