"""Transforms one after the other, computed in at least float32 and rounded once."""

from typing import Any

import optax

from gradkit._core import check, numbers
from gradkit._core.factory import factory
from gradkit._core.types import AnyTransform, Extra, Params, Transform, Updates, wrapper


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
        gradient. `optax.chain` is for those who want the gradient's at every stage.

    >>> p, g = jnp.zeros(2), jnp.ones(2, jnp.bfloat16)
    >>> tx = gk.chain(gk.scale_by_adam(), gk.step_by_learning_rate(1e-3))
    >>> print(tx.update(g, tx.init(p), p)[0])  # no digit of bfloat16's -0.00099945 is left
    [-0.001 -0.001]
    """
    what = "transforms must be one or more"
    check.holds("chain", len(transforms) > 0, what, "none", "Pass at least one.")
    inner = optax.with_extra_args_support(optax.chain(*transforms))

    def init(params: Params) -> Any:
        return inner.init(numbers.wide(params))

    def update(
        updates: Updates, state: Any, params: Params = None, **extra: Extra
    ) -> tuple[Updates, Any]:
        wide = numbers.wide(numbers.opaque(updates))
        u, state = inner.update(wide, state, numbers.wide(params), **extra)
        return numbers.like(u, updates if params is None else params), state

    return wrapper(init, update)
