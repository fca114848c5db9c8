"""Grafting: the direction of one transform, with the norm of another's."""

from typing import Any, NamedTuple

import jax
import optax

from gradkit._core import norms, numbers, tree
from gradkit._core.call import widened
from gradkit._core.factory import factory
from gradkit._core.types import AnyTransform, Extra, Params, Transform, Updates, wrapper


class GraftState(NamedTuple):
    """State of `graft`: those of the two transforms."""

    direction: optax.OptState
    magnitude: optax.OptState


@factory
def graft(direction: AnyTransform, magnitude: AnyTransform) -> Transform:
    r"""Give each leaf's update of `direction` the norm that its update of `magnitude` has.

    $$d = \mathrm{direction}(g), \quad m = \mathrm{magnitude}(g), \qquad
      u_i = \frac{\lVert m_i \rVert}{\lVert d_i \rVert} \, d_i$$

    Where either norm is zero, so is the update.

    Args:
        direction: the transform that says where to go, such as `gk.precondition_by_shampoo()`,
            which takes matrices alone: `gk.route({"kernel": gk.graft(...)}, default=gk.adamw())`.
            A positive factor on it, such as a learning rate, has no effect.
        magnitude: the transform that says how far, such as `gk.scale_by_adam()`; a learning rate
            and schedule tuned for it alone serve here.

    Needs: what the two transforms need; both get the same extra arguments.
    State: `0` bytes a leaf, `0` once, and the state of `direction` and that of `magnitude`.
    Flops: at most `22*size + 100` a leaf, `100` once, and those of `direction` and of `magnitude`.
    Paper: Agarwal, Anil, Hazan, Koren and Zhang, "Disentangling Adaptive Gradient Methods from
        Learning Rates", arXiv:2002.11803, AdaGraft, layer by layer.
    Departure: the paper adds a small number to the norm in the denominator; here a norm of zero
        gives zero instead. The paper's global form, one quotient for all leaves, is this one
        over a single leaf: `optax.flatten(gk.graft(...))`, for transforms that work entry by entry.
    Limits: a leaf that stacks several layers has one norm. The sign is that of `direction`: both
        must descend, or neither. Everything is computed in at least float32, and the update has
        the dtype of the gradient. Leaves that are not real numbers take the update of
        `direction`.

    >>> tx = gk.graft(optax.sign_sgd(-1.0), optax.scale(2.0))
    >>> g = jnp.array([3.0, 4.0, 0.0, 0.0])
    >>> print(tx.update(g, tx.init(g))[0].round(3))  # of length 2 * 5
    [7.071 7.071 0.    0.   ]
    """
    direction_tx = optax.with_extra_args_support(direction)
    magnitude_tx = optax.with_extra_args_support(magnitude)

    def init(params: Params) -> GraftState:
        wide = numbers.wide(params)
        with widened():
            return GraftState(direction_tx.init(wide), magnitude_tx.init(wide))

    def update(
        updates: Updates, state: GraftState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, GraftState]:
        g, p = numbers.wide(numbers.opaque(updates)), numbers.wide(params)
        with widened():
            d, s_direction = direction_tx.update(g, state.direction, p, **extra)
            m, s_magnitude = magnitude_tx.update(g, state.magnitude, p, **extra)
        u = _with_norms_of(m, d)
        return numbers.like(u, updates), GraftState(s_direction, s_magnitude)

    return wrapper(init, update)


def _with_norms_of(m: Any, d: Any) -> Any:
    """`d`, with each real leaf scaled to the norm of its leaf of `m`."""
    ds, structure = jax.tree.flatten(d)
    real = [i for i, x in enumerate(ds) if numbers.is_real(x)]
    directions = [ds[i] for i in real]
    lengths = norms.of_leaves(directions)
    target_norms = norms.of_leaves([jax.tree.leaves(m)[i] for i in real])
    units = tree.scale_each(numbers.inverse(lengths), numbers.read(directions))
    for i, x in zip(real, tree.scale_each(target_norms.astype(lengths.dtype), units)):
        ds[i] = x
    return structure.unflatten(ds)
