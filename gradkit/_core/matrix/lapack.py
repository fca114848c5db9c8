"""Factorizations of matrices `[*batch, rows, cols]`; a CPU takes the matrices one by one.

On a CPU jaxlib 0.10 splits a batch over the threads that run the program, and one thread waits for
the others. With two cores, two factorizations can wait on both threads, and the program hangs. A
single matrix is not split.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import shard
from gradkit._core.condition import on_axes_of


def one_by_one(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` of arrays `[*batch, rows, cols]`; a CPU takes the batch in sequence, under `vmap` too."""

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
    """`f`, whose `vmap` is a sequential `lax.map`."""

    @jax.custom_batching.custom_vmap
    def each(*xs: jax.Array) -> Any:
        return f(*xs)

    @each.def_vmap
    def rule(_: int, batched: list[bool], *xs: jax.Array) -> Any:
        def of_parts(parts: list[jax.Array]) -> Any:
            part = iter(parts)
            return each(*[next(part) if b else x for b, x in zip(batched, xs)])

        run = functools.partial(jax.lax.map, of_parts)
        ys = shard.where_it_is(run, [x for b, x in zip(batched, xs) if b])
        return ys, jax.tree.map(lambda _: True, ys)

    return each


eigh = one_by_one(jnp.linalg.eigh)
eigvalsh = one_by_one(jnp.linalg.eigvalsh)
svd = one_by_one(functools.partial(jnp.linalg.svd, full_matrices=False))


@one_by_one
def qr_diagonal(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`Q` and the diagonal of `R` of the QR decomposition, for at least as many rows as columns."""
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
    """`jax.lax.linalg.triangular_solve`, differentiable, and `one_by_one` on a CPU."""

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
