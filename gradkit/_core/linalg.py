"""Functions of `[*batch, small, large]`: matrices that are not tall."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gradkit._core import batch, tree
from gradkit._core.types import Scalar

# The quintic of Jordan's Muon, steepest at zero: singular values above 1/650 of the
# norm end between 0.68 and 1.21.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def norms(x: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """Euclidean norms along `axis`, which stays; safe for entries of 1e25 and of 1e-30."""
    divisor = tree.divisible(jnp.max(jnp.abs(x), axis, keepdims=True, initial=0))
    squares = jnp.sum(jnp.square(x / divisor), axis, keepdims=True)
    return divisor * jnp.sqrt(squares)


@jax.jit
def polar(x: batch.Matrices, eps: Scalar) -> batch.Matrices:
    r"""About the nearest matrix with orthonormal rows: every singular value near 1.

    Five Newton-Schulz steps $X \leftarrow aX + (bA + cA^2)X$, $A = XX^T$, from $X = x /
    (\lVert x \rVert_F + \mathrm{eps})$. A zero matrix stays zero.
    """
    a, b, c = NEWTON_SCHULZ

    def step(_: int, x: jax.Array) -> jax.Array:
        gram = x @ x.mT
        return a * x + (b * gram + c * (gram @ gram)) @ x

    size = norms(x, (-2, -1)) + jnp.asarray(eps, x.dtype)
    x = x / jnp.where(size > 0, size, 1)
    return jax.lax.fori_loop(0, NEWTON_SCHULZ_STEPS, step, x)


@functools.partial(jax.jit, static_argnames="rank")
def principal_basis(x: batch.Matrices, rank: int) -> jax.Array:
    """The first `rank` left singular vectors `[*batch, small, rank]`, largest value first.

    The entry of largest size in each vector is positive, the first of several. Vectors of
    equal singular values are some orthonormal basis of their space: so for a zero matrix.
    """
    rank = min(rank, x.shape[-2])
    if not x.size:
        return jnp.zeros((*x.shape[:-1], rank), x.dtype)
    largest = jnp.max(jnp.abs(x), (-2, -1), keepdims=True)
    x = x / jnp.where(largest > 0, largest, 1)
    gram = jnp.matmul(x, x.mT, precision=jax.lax.Precision.HIGHEST)
    basis = jnp.linalg.eigh(gram)[1][..., : -rank - 1 : -1]
    first = jnp.argmax(jnp.abs(basis), axis=-2, keepdims=True)
    return basis * jnp.sign(jnp.take_along_axis(basis, first, axis=-2))


@jax.jit
def renew_bases(
    renew: jax.Array, bases: tuple[jax.Array, ...], gs: Sequence[batch.Matrices]
) -> tuple[jax.Array, ...]:
    """The principal bases of all of `gs` where `renew` holds, else `bases`."""
    rank = max((p.shape[-1] for p in bases), default=0)

    def look() -> tuple[jax.Array, ...]:
        basis = functools.partial(principal_basis, rank=rank)
        return tuple(batch.map_shapes(basis, gs))

    return jax.lax.cond(renew, look, lambda: bases)
