"""Mirror descent: the update is added to a power of the weights."""

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, stateless


@factory
def retract_by_mirror(power: Hyper = 3.0) -> Transform:
    r"""Add each update to the mirror image of its weight, under the potential of a p-norm.

    $$y = \mathrm{sign}(p) \, |p|^{\mathrm{power} - 1} + \Delta, \qquad
      u = \mathrm{sign}(y) \, |y|^{1 / (\mathrm{power} - 1)} - p$$

    which is $\nabla \phi(p + u) = \nabla \phi(p) + \Delta$ for the potential
    $\phi(x) = \frac{1}{\mathrm{power}} \sum_i |x_i|^{\mathrm{power}}$.

    Args:
        power: of the norm, above 1. At 2 updates are added as they are; the higher, the less
            large weights move and the more small ones.

    Needs: params. Stands last in a chain. Updates are in units of the gradient's dual: a
        learning rate for weights of size 1 is good for all.
    State: `0` bytes a leaf, `0` once.
    Flops: at most `40*size` a leaf, `10` once.
    Paper: Pogodin, Cornford, Ghosh, Gidel, Lajoie and Richards, "Synaptic Weight
        Distributions Depend on the Geometry of Plasticity", arXiv:2305.19394.
    Departure: the paper's p-norm potentials only; its negative entropy, which multiplies weights,
        is not among them.
    Limits: near zero weights move by a root of the update when `power` is above 2. A
        non-finite entry counts as zero.

    >>> tx = gk.retract_by_mirror(3.0)
    >>> p = jnp.array([2.0, -1.0])  # squares 4 and -1
    >>> u, _ = tx.update(jnp.array([5.0, 5.0]), tx.init(p), p)
    >>> [round(float(x), 3) for x in p + u]
    [3.0, 2.0]
    """
    check.above("retract_by_mirror", 1, power=power)

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del extra
        check.given("retract_by_mirror", params)
        q = jnp.asarray(power - 1, jnp.result_type(float))

        def move(u: jax.Array, p: jax.Array) -> jax.Array:
            p, n = p.astype(u.dtype), q.astype(u.dtype)
            most = jnp.finfo(u.dtype).max
            image = jnp.minimum(jnp.abs(p) ** n, most)
            y = jnp.clip(jnp.sign(p) * image + u, -most, most)
            reached = jnp.sign(y) * jnp.minimum(jnp.abs(y) ** (1 / n), most)
            far = jnp.clip(reached - p, -most, most)
            # a small step by its ratio to the image, so that nothing cancels
            ratio = u * jnp.sign(p) / jnp.where(image > 0, image, 1)
            small = (image > 0) & (jnp.abs(ratio) < 0.5)
            near = p * jnp.expm1(jnp.log1p(jnp.where(small, ratio, 0)) / n)
            return jnp.where(small, near, far)

        u = jax.tree.map(move, numbers.read(updates), numbers.read(params))
        return numbers.like(u, updates)

    return stateless(update)
