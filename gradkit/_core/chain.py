"""Transforms one after the other, computed in at least float32 and rounded once."""

import contextlib
from typing import Any, cast

import optax

from gradkit._core import check, numbers
from gradkit._core.call import widened
from gradkit._core.factory import factory
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Params,
    Rounding,
    Transform,
    Updates,
    wrapper,
)


@factory
def chain(*transforms: AnyTransform) -> Transform:
    r"""Apply transforms in order, and round what comes out once, to the dtype of the parameters.

    $$u = \mathrm{round}(f_n(\dots f_2(f_1(\mathrm{float32}(g)))))$$

    Like `optax.chain`, whose state it has. There each transform rounds to the dtype of what it is
    given, so that gradients in bfloat16 are rounded again at every stage; here they are widened to
    at least float32 first, and so are parameters: every transform sees the full precision of the
    one before, and makes its state in it.

    Args:
        transforms: ours or optax's. A chain in a chain is given float32, so it rounds nothing.

    Needs: what the transforms need; all get the same extra arguments.
    Limits: the update has the dtype of the parameters where these are given, else that of the
        gradient; where the last transform is a `round_by_`, which chooses numbers of that dtype by
        itself, it has float32, as only that leads to them. `optax.chain` is for those who want the
        gradient's at every stage.

    >>> p, g = jnp.zeros(2), jnp.ones(2, jnp.bfloat16)
    >>> tx = gk.chain(gk.scale_by_adam(), gk.step_by_learning_rate(1e-3))
    >>> print(tx.update(g, tx.init(p), p)[0])  # no digit of bfloat16's -0.00099945 is left
    [-0.001 -0.001]
    """
    what = "transforms must be one or more"
    check.holds("chain", len(transforms) > 0, what, "none", "Pass at least one.")
    for tx in transforms[:-1]:
        what = "a transform that rounds parameters must be the last one"
        remedy = "Move it to the end."
        check.holds("chain", not isinstance(tx, Rounding), what, "one before", remedy)
    rounds = isinstance(transforms[-1], Rounding)
    txs = [optax.with_extra_args_support(tx) for tx in transforms]
    last = len(txs) - rounds  # the first that sees parameters as they are

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

    made = wrapper(init, update)
    return cast(Transform, Rounding(*made)) if rounds else made


def _widened(wide: Params, params: Params) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if wide is params else widened()
