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


def one_by_one(f: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
    """`f` of each of `[*batch, rows, cols]`, also where a caller maps over more axes."""

    @functools.wraps(f)
    def of_batch(x: jax.Array) -> Any:
        if jax.default_backend() != "cpu":
            return f(x)
        each = jax.custom_batching.sequential_vmap(lambda x: f(x))
        for _ in x.shape[:-2]:
            each = jax.vmap(each)
        return each(x)

    return of_batch


eigh = one_by_one(jnp.linalg.eigh)
eigvalsh = one_by_one(jnp.linalg.eigvalsh)
qr = one_by_one(jnp.linalg.qr)
svd = one_by_one(functools.partial(jnp.linalg.svd, full_matrices=False))
cholesky = one_by_one(jnp.linalg.cholesky)
