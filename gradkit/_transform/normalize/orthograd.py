"""OrthoGrad: no gradient along the parameters, so that they turn before they grow."""

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Params, Transform, Updates, stateless


@factory
def normalize_by_orthograd() -> Transform:
    r"""Make each leaf's gradient orthogonal to its parameter, and as long as it was.

    $$o = g - \frac{\langle w, g \rangle}{\langle w, w \rangle} w, \qquad
      u = \frac{\lVert g \rVert}{\lVert o \rVert} o$$

    Needs: params.
    State: `0` bytes a leaf, `0` once.
    Flops: at most `44*size + 20` a leaf.
    Paper: Prieto, Barsbey, Mediano and Birdal, "Grokking at the Edge of Numerical
        Stability", arXiv:2501.04697.
    Departure: as in the authors' code, each leaf is projected by itself and its norm is restored;
        the paper projects all parameters as one vector and does not restore the norm. The
        authors' code adds `1e-30` to the divisor, too little beside squares that underflow in
        float32; here both vectors are first scaled to unit norm, and projected twice. A gradient
        that is parallel to its parameter up to rounding gives zero.
    Limits: a leaf with one entry gets a zero update, as nothing is orthogonal to it: exempt
        scalars with `optax.masked`. Beside a zero parameter the gradient passes unchanged. Stands
        before momentum.

    >>> tx = gk.normalize_by_orthograd()
    >>> w = jnp.array([1.0, 0.0])
    >>> print(tx.update(jnp.array([3.0, 4.0]), tx.init(w), w)[0].round(3))
    [0. 5.]
    """

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del extra
        check.given("normalize_by_orthograd", params)
        g = numbers.read(updates)
        gs, structure = jax.tree.flatten(g)
        ws = jax.tree.leaves(numbers.wide(params))
        sizes = zip(norms.of_leaves(g), norms.of_leaves(params))
        u = [project(gi, wi, *size) for gi, wi, size in zip(gs, ws, sizes)]
        return numbers.like(structure.unflatten(u), updates)

    return stateless(update)


def project(
    g: jax.Array, w: jax.Array, g_norm: jax.Array, w_norm: jax.Array
) -> jax.Array:
    """The part of `g` orthogonal to `w`, at the norm of `g`."""
    g_norm, w_norm = g_norm.astype(g.dtype), w_norm.astype(w.dtype)
    o = g / jnp.where(g_norm > 0, g_norm, 1)
    w = (w / jnp.where(w_norm > 0, w_norm, 1)).astype(g.dtype)
    for _ in range(2):  # the second removes the rounding error of the first
        o = o - jnp.sum(w * o) * w
    size = norms.unscaled(o, tuple(range(o.ndim)))
    parallel = size <= 16 * jnp.finfo(g.dtype).eps
    return jnp.where(parallel, 0, o / jnp.where(parallel, 1, size)) * g_norm
