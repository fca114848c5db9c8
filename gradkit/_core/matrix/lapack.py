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
from gradkit._core.condition import on_axes_of


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
svd = one_by_one(functools.partial(jnp.linalg.svd, full_matrices=False))


@one_by_one
def qr_diagonal(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`Q` of the QR decomposition of a matrix that is not fat, and the diagonal of `R`, not formed."""
    reflections, scales = jnp.linalg.qr(x, mode="raw")
    q = jax.lax.linalg.householder_product(reflections.mT, scales)
    return q, jnp.diagonal(reflections, axis1=-2, axis2=-1)


@one_by_one
def _solve_positive(a: jax.Array, b: jax.Array) -> jax.Array:
    return jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(a), True), b)


def solve_positive(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a^-1 b`, for a positive definite `a`."""
    b, solve = on_axes_of(b, a), lambda _, b: _solve_positive(a, b)
    return jax.lax.custom_linear_solve(lambda x: a @ x, b, solve, symmetric=True)


def solve_triangular(
    a: jax.Array,
    b: jax.Array,
    *,
    left_side: bool = False,
    lower: bool = False,
    transpose_a: bool = False,
) -> jax.Array:
    """`jax.lax.linalg.triangular_solve`, which says what the options are."""

    def solve(transpose_a: bool, b: jax.Array) -> jax.Array:
        solve = functools.partial(
            jax.lax.linalg.triangular_solve,
            left_side=left_side,
            lower=lower,
            transpose_a=transpose_a,
        )
        return one_by_one(solve)(a, b)

    def product(x: jax.Array) -> jax.Array:
        triangle = jnp.tril(a) if lower else jnp.triu(a)
        triangle = triangle.mT if transpose_a else triangle
        return triangle @ x if left_side else x @ triangle

    return jax.lax.custom_linear_solve(
        product,
        on_axes_of(b, a),
        lambda _, b: solve(transpose_a, b),
        lambda _, b: solve(not transpose_a, b),
    )
