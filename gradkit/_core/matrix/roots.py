"""Inverse roots and eigenbases of positive matrices `[*batch, n, n]`.

Factorizations see finite matrices of mean eigenvalue 1, whatever the size of the gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import norms
from gradkit._core.condition import on_axes_of
from gradkit._core.matrix import lapack, linalg, memory, spectral
from gradkit._core.types import Scalar


def identity(square: jax.Array) -> jax.Array:
    """The identities of the shape `[*batch, n, n]` of another array."""
    eye = jnp.eye(square.shape[-1], dtype=square.dtype)
    return on_axes_of(jnp.broadcast_to(eye, square.shape), square)


def gram(x: jax.Array) -> jax.Array:
    r"""$x x^T$, in full precision."""
    return jnp.matmul(x, x.mT, precision=linalg.PRECISE)


@jax.jit
def inverse_root(a: jax.Array, power: Scalar, damping: Scalar) -> jax.Array:
    r"""$(a + \mathrm{damping} \, \bar\lambda I)^{-\mathrm{power}}$, $\bar\lambda$ the mean eigenvalue.

    Eigenvalues under a rounding of the largest count as that much, so that no direction gets
    more than $\epsilon^{-\mathrm{power}}$. Of zero it is the identity.
    """
    if not a.size:
        return a
    mean, idle, a = mean_eigenvalue(a), _idle(a), _set_apart(a)
    limits = jnp.finfo(a.dtype)

    def damped(values: jax.Array, power: Scalar, damping: Scalar) -> jax.Array:
        sums = jnp.maximum(values, 0) + jnp.asarray(damping, a.dtype)
        sums = jnp.maximum(sums, limits.eps * values[..., -1:])
        return jnp.where(sums > 0, sums, 1) ** -power

    root = spectral.of_eigenvalues(damped, a, power, damping)
    root = jnp.where((idle | idle.mT) & (identity(a) == 0), 0, root)  # but for rounding
    # the two powers apart: a product of eigenvalues and their mean may underflow
    known = jnp.maximum(jnp.where(mean > 0, mean, 1), limits.tiny)
    size = jnp.minimum(known**-power, limits.max * limits.eps**power)
    return jnp.where(mean > 0, size * root, identity(a)).astype(a.dtype)


def largest_eigenvalue(a: jax.Array) -> jax.Array:
    """That of every `[*batch, n, n]`: exact up to `n` of 32, else a lower bound, of sizes `[*batch]`.

    The bound is eight power steps from the column of the largest diagonal entry.
    """
    n = a.shape[-1]
    if not a.size:
        return jnp.zeros(a.shape[:-2], a.dtype)
    diagonal = jnp.diagonal(a, axis1=-2, axis2=-1)
    largest = jnp.max(diagonal, -1)
    a = a / jnp.where(largest > 0, largest, 1)[..., None, None]
    if n <= 32:
        return largest * _exact_largest(a)
    start = jnp.argmax(diagonal, -1)[..., None, None]
    x = jnp.take_along_axis(a, start, -1)

    def step(_: int, x: jax.Array) -> jax.Array:
        return a @ (x / jnp.maximum(norms.unscaled(x, (-2, -1)), 1e-30))

    x = jax.lax.fori_loop(0, 8, step, x)
    return largest * norms.unscaled(x, (-2, -1))[..., 0, 0]


@jax.custom_jvp
def _exact_largest(a: jax.Array) -> jax.Array:
    return lapack.eigvalsh(a)[..., -1]


@_exact_largest.defjvp
def _of_exact_largest(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (a,), (change,) = primals, tangents
    x = lapack.eigh(a)[1][..., -1:]
    return _exact_largest(a), jnp.sum(x * (change @ x), (-2, -1))


@jax.jit
def eigenbasis(a: jax.Array) -> jax.Array:
    """Orthonormal eigenvectors as rows, that of the largest eigenvalue first."""
    if not a.size:
        return a
    vectors = lapack.eigh(memory.row_major(_set_apart(a)))[1]
    return linalg.signed(vectors).mT[..., ::-1, :]


def power_product(a: jax.Array, basis: jax.Array) -> jax.Array:
    """Every row of a basis times `a`, of mean eigenvalue 1: power iteration before its QR step."""
    return jnp.matmul(basis, of_mean_one(a), precision=linalg.PRECISE)


def or_before(moved: jax.Array, basis: jax.Array) -> jax.Array:
    """Every row of `moved`, or that of `basis` where it is zero, so that no basis loses a vector."""
    return jnp.where(jnp.any(moved != 0, -1, keepdims=True), moved, basis)


def of_mean_one(a: jax.Array) -> jax.Array:
    """`a` over its mean eigenvalue; zero stays zero."""
    mean = mean_eigenvalue(a)
    return a / jnp.where(mean > 0, mean, 1)


def _set_apart(a: jax.Array) -> jax.Array:
    """`a` over its mean eigenvalue, and -1 on the diagonal where its row is zero.

    Such a row never had a gradient. Its axis is then an eigenvector of its own, the last, and not
    one of the many of eigenvalue 0, in which it would be mixed with others and move as they do.
    """
    a = of_mean_one(a)
    return a - jnp.where(_idle(a), identity(a), 0)


def _idle(a: jax.Array) -> jax.Array:
    """Whether each row of every matrix is zero, `[*batch, n, 1]`."""
    return jnp.all(a == 0, -1, keepdims=True)


def mean_eigenvalue(a: jax.Array) -> jax.Array:
    """That of every matrix, `[*batch, 1, 1]`."""
    return jnp.trace(a, axis1=-2, axis2=-1)[..., None, None] / max(a.shape[-1], 1)
