"""Factorizations of matrices `[*batch, rows, cols]`, on a CPU one after the other.

There jaxlib 0.10 gives the parts of a batch to the threads that run the program, and
waits on one of these. When two factorizations wait on a machine of two cores, no thread is left
to do the parts, and the program hangs. One matrix is done where it is asked for.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import shard


def one_by_one(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` of arrays `[*batch, rows, cols]`, also where a caller maps over more axes."""

    @functools.wraps(f)
    def of_batch(*xs: jax.Array) -> Any:
        if jax.default_backend() != "cpu":
            return f(*xs)
        each = _in_turn(f)
        for _ in xs[0].shape[:-2]:
            each = jax.vmap(each)
        return each(*xs)

    return of_batch


def _in_turn(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f`, which does one after the other where a caller maps over it."""

    @jax.custom_batching.custom_vmap
    def each(*xs: jax.Array) -> Any:
        return f(*xs)

    @each.def_vmap
    def rule(_: int, batched: list[bool], *xs: jax.Array) -> Any:
        def one(parts: list[jax.Array]) -> Any:
            part = iter(parts)
            return each(*[next(part) if b else x for b, x in zip(batched, xs)])

        run = functools.partial(jax.lax.map, one)
        ys = shard.where_it_is(run, [x for b, x in zip(batched, xs) if b])
        return ys, jax.tree.map(lambda _: True, ys)

    return each


eigh = one_by_one(jnp.linalg.eigh)
eigvalsh = one_by_one(jnp.linalg.eigvalsh)
qr = one_by_one(jnp.linalg.qr)
svd = one_by_one(functools.partial(jnp.linalg.svd, full_matrices=False))


@one_by_one
def orthonormal(x: jax.Array) -> jax.Array:
    """`Q` of the QR decomposition, without the triangle, which is not formed."""
    reflections, scales = jnp.linalg.qr(x, mode="raw")
    return jax.lax.linalg.householder_product(reflections.mT, scales)


@one_by_one
def solve_positive(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a^-1 b`, for a positive definite `a`."""
    return jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(a), True), b)


def solve_triangular(a: jax.Array, b: jax.Array, **options: bool) -> jax.Array:
    """`jax.lax.linalg.triangular_solve`, which lists the options."""
    solve = functools.partial(jax.lax.linalg.triangular_solve, **options)
    return one_by_one(solve)(a, b)
