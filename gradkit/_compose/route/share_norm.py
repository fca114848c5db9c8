"""One norm for all groups."""

import jax
import optax

from gradkit._core import norms, numbers
from gradkit._core.factory import factory
from gradkit._core.types import AnyTransform, Extra, Params, Transform, Updates


@factory
def share_norm(inner: AnyTransform) -> Transform:
    r"""Pass `inner` the norm of the whole gradient, for groups that each see a part of it.

    $$u = \mathrm{inner}(g, \; \mathrm{global\_norm} = \lVert g \rVert)$$

    Args:
        inner: a `route` or `optax.partition` whose groups clip by a global norm.

    Needs: what `inner` needs; a `global_norm` that is given already is kept.
    State: `0` bytes a leaf, `0` once, and the state of `inner`.
    Flops: at most `10*size` a leaf, and those of `inner`.
    Paper: none.
    Departure: none.
    Limits: the norm is that of the gradient given here: inside a group, clip first. Leaves that
        are not floating-point, such as gradients of int8 weights, do not count.

    >>> groups = gk.route({"a": gk.clip_by_global_norm(1.0), "b": optax.identity()})
    >>> tx, g = gk.share_norm(groups), {"a": jnp.full((), 3.0), "b": jnp.full((), 4.0)}
    >>> round(float(tx.update(g, tx.init(g))[0]["a"]), 3)
    0.6
    """
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> optax.OptState:
        return inner.init(params)

    def update(
        updates: Updates, state: optax.OptState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, optax.OptState]:
        real = [x for x in jax.tree.leaves(updates) if numbers.is_real(x)]
        extra.setdefault("global_norm", norms.of_tree(real))
        return inner.update(updates, state, params, **extra)

    return inner._replace(init=init, update=update)
