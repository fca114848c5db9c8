"""Spectral functions of symmetric matrices, differentiable at equal eigenvalues too."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core.matrix import lapack
from gradkit._core.matrix.linalg import PRECISE

Function = Callable[..., jax.Array]  # elementwise, of eigenvalues [*batch, n]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def of_eigenvalues(f: Function, a: jax.Array, *args: Any) -> jax.Array:
    r"""$V f(\lambda) V^T$ for every symmetric $a = V \lambda V^T$."""
    values, vectors = lapack.eigh(a)
    return _product(vectors, f(values, *args))


@of_eigenvalues.defjvp
def _of_eigenvalues(f: Function, primals: Any, tangents: Any) -> tuple[Any, Any]:
    r"""$V (K \circ V^T \dot a V) V^T$, $K_{ij} = (f_i - f_j) / (\lambda_i - \lambda_j)$; $f'$ if $f_i \approx f_j$."""
    (a, *args), (change, *changes) = primals, tangents
    values, vectors = lapack.eigh(a)
    inside = _precise(vectors.mT, change, vectors)
    along = jnp.diagonal(inside, axis1=-2, axis2=-1)
    y, diagonal = jax.jvp(f, (values, *args), (along, *changes))
    slope = jax.jvp(lambda x: f(x, *args), (values,), (jnp.ones_like(values),))[1]

    pair = lambda x: (x[..., :, None], x[..., None, :])
    (yi, yj), (xi, xj), (si, sj) = map(pair, (y, values, slope))
    near = jnp.abs(yi - yj) <= jnp.finfo(a.dtype).eps ** (1 / 3) * jnp.abs(yi + yj)
    k = jnp.where(near, (si + sj) / 2, (yi - yj) / jnp.where(near, 1, xi - xj))
    moved = jnp.where(
        jnp.eye(a.shape[-1], dtype=bool), diagonal[..., None, :], k * inside
    )
    return _product(vectors, y), _precise(vectors, moved, vectors.mT)


def _product(vectors: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.matmul(vectors * values[..., None, :], vectors.mT, precision=PRECISE)


def _precise(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """`a @ b @ c`."""
    return jnp.matmul(jnp.matmul(a, b, precision=PRECISE), c, precision=PRECISE)
