"""Caution: move only where the direction and the gradient agree."""

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers
from gradkit._core.factory import factory
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Hyper,
    Params,
    Transform,
    Updates,
    transform,
)


@factory
def direct_by_caution(inner: AnyTransform, *, eps: Hyper = 1.0) -> Transform:
    r"""Drop the entries of `inner`'s direction that oppose the gradient, and enlarge the rest.

    $$d_t = \mathrm{inner}(g_t), \quad k_t = \mathbb{1}[d_t g_t > 0], \qquad
      u_t = \frac{\mathrm{size}}{\mathrm{sum}(k_t) + \epsilon} \, k_t d_t$$

    Args:
        inner: any transform whose direction has the sign of the gradient.
        eps: added to the number of entries kept in a leaf, in entries.

    Needs: what `inner` needs. Stands before `step_by_learning_rate` turns the sign.
    State: `0` bytes a leaf, `0` once, and the state of `inner`.
    Flops: at most `18*size` a leaf, and those of `inner`.
    Paper: Liang, Chen, Liu and Liu, "Cautious Optimizers: Improving Training with One Line of
        Code", arXiv:2411.16085, Algorithm 1.
    Departure: `eps` is added to a number of entries and is 1, as in the paper's text and its
        C-Lion; the one line of Algorithm 1 adds it to a mean, where it would be `eps / size`. The
        later C-AdamW bounds the mean below by 1e-3 instead.
    Limits: where few entries of a leaf agree, each is enlarged by up to `size / (1 + eps)`; a
        leaf of one entry is halved. The updates of a recipe have the opposite sign: with
        `turn = optax.scale(-1.0)`, `chain(direct_by_caution(chain(recipe, turn)), turn)` is its
        cautious form, and likewise with `direct_by_grams`. Weight decay belongs outside.

    >>> tx = gk.direct_by_caution(optax.scale(-1.0))  # never against the gradient
    >>> u, _ = tx.update(jnp.array([1.0, -2.0]), tx.init(jnp.zeros(2)))
    >>> u.tolist()
    [0.0, 0.0]
    """
    check.nonnegative("direct_by_caution", eps=eps)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> optax.OptState:
        return inner.init(numbers.wide(params))

    def update(
        updates: Updates, state: optax.OptState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, optax.OptState]:
        g = numbers.read(updates)
        direction, state = inner.update(g, state, numbers.wide(params), **extra)

        def keep(d: jax.Array, g: jax.Array) -> jax.Array:
            agree = jnp.sign(d) * jnp.sign(g) > 0  # d * g itself could vanish
            scale = d.size / (jnp.sum(agree, dtype=d.dtype) + eps)
            return jnp.where(agree, d * scale, 0).astype(d.dtype)

        return numbers.like(jax.tree.map(keep, direction, g), updates), state

    return transform(init, update)
