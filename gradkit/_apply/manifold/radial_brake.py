"""The radial brake: weights that grow more slowly than their updates would make them."""

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers
from gradkit._core.factory import factory
from gradkit._core.matrix import linalg
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, stateless


@factory
def retract_by_radial_brake(outward: Hyper = 0.5, *, inward: Hyper = 1.0) -> Transform:
    r"""Keep a fraction of the change of each leaf's norm, in the direction the update leads to.

    $$r = \lVert p + \Delta \rVert - \lVert p \rVert, \qquad
      R = \lVert p \rVert + \begin{cases} \mathrm{outward} \, r & r > 0 \\
      \mathrm{inward} \, r & \text{else} \end{cases}, \qquad
      u = R \, \frac{p + \Delta}{\lVert p + \Delta \rVert} - p$$

    Args:
        outward: the fraction that is kept of what a norm gains, from 0 to 1.
        inward: the fraction that is kept of what a norm loses, from 0 to 1.

    Needs: params. Stands last in a chain.
    State: `0` bytes a leaf, `0` once.
    Flops: at most `34*size + 40` a leaf.
    Paper: none; the radial brake of NVIDIA's Emerging-Optimizers.
    Departure: none.
    Limits: leaves of fewer than two axes pass as they are. Also an update across the weights
        lengthens them, and is shortened. A non-finite entry counts as zero.

    >>> tx = gk.retract_by_radial_brake(0.5)
    >>> p = jnp.array([[1.0, 0.0]])
    >>> print(p + tx.update(jnp.array([[2.0, 0.0]]), tx.init(p), p)[0])
    [[2. 0.]]
    """
    check.interval("retract_by_radial_brake", "[0, 1]", outward=outward, inward=inward)

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del extra
        check.given("retract_by_radial_brake", params)

        def brake(u: jax.Array, p: jax.Array) -> jax.Array:
            if u.ndim < 2:
                return u
            p, axes = p.astype(u.dtype), tuple(range(u.ndim))
            norm = norms.along(p, axes)
            gain = norms.along(p + u, axes) - norm
            fraction = jnp.where(gain > 0, outward, inward).astype(u.dtype)
            return linalg.onto_sphere(p, u, norm + fraction * gain)

        u = jax.tree.map(brake, numbers.read(updates), numbers.read(params))
        return numbers.like(u, updates)

    return stateless(update)
