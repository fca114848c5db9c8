"""Hyperball: weights that stay on the sphere they began on."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.matrix import linalg
from gradkit._core.types import Extra, Params, Transform, Updates, transform


class HyperballState(NamedTuple):
    """State of `retract_by_hyperball`."""

    count: jax.Array  # updates so far, int32 []
    radii: jax.Array  # norm of every leaf before the first update, [leaves]


@factory
def retract_by_hyperball() -> Transform:
    r"""Bring each leaf back, after each update, to the norm it had before the first.

    $$u = R \, \frac{p + \Delta}{\lVert p + \Delta \rVert} - p, \qquad
      R = \lVert p_0 \rVert$$

    Behind a direction as long as its weights the learning rate is about the largest angle, in
    radians, by which they turn. So AdamH, and MuonH with Muon's direction in place of Adam's:

        gk.chain(gk.scale_by_adam(), gk.normalize_by_trust_ratio(),
                 gk.step_by_learning_rate(0.01), gk.retract_by_hyperball())

    Needs: params. Stands last in a chain.
    State: `4` bytes a leaf, `4` once.
    Flops: at most `30*size + 40` a leaf, `40` once.
    Paper: Wen, Dang, Lyu, Ma and Liang, "Fantastic Pretraining Optimizers and Where to Find
        Them II: Hyperball Optimization", arXiv:2606.16899; also in NVIDIA's
        Emerging-Optimizers.
    Departure: none; the chain before this sets the norm of the update, which the paper fixes too.
    Limits: leaves of fewer than two axes pass as they are, and so does a leaf whose norm was
        zero before the first update. Weight decay before this changes the angle alone. A
        non-finite entry counts as zero.

    >>> tx = gk.retract_by_hyperball()
    >>> p = jnp.array([[3.0], [4.0]])
    >>> q = p + tx.update(jnp.array([[0.0], [-4.0]]), tx.init(p), p)[0]
    >>> q.ravel().round(3).tolist()
    [5.0, 0.0]
    """

    def init(params: Params) -> HyperballState:
        return HyperballState(jnp.zeros([], jnp.int32), tree.zero_per_leaf(params))

    def update(
        updates: Updates, state: HyperballState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, HyperballState]:
        del extra
        check.given("retract_by_hyperball", params)
        now = norms.of_leaves(params).astype(state.radii.dtype)
        radii = jnp.where(state.count == 0, now, state.radii)
        leaves, structure = jax.tree.flatten(numbers.read(updates))

        def retract(u: jax.Array, p: jax.Array, radius: jax.Array) -> jax.Array:
            if u.ndim < 2:
                return u
            radius = radius.astype(u.dtype)
            on_sphere = linalg.onto_sphere(p.astype(u.dtype), u, radius)
            return jnp.where(radius > 0, on_sphere, u)

        ps = jax.tree.leaves(numbers.read(params))
        u = structure.unflatten(map(retract, leaves, ps, radii))
        return numbers.like(u, updates), HyperballState(
            numbers.increment(state.count), radii
        )

    return transform(init, update)
