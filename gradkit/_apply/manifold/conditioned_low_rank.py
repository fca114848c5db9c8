"""CondLR: matrices of low rank whose singular values stay close to each other."""

import functools

import jax
import jax.numpy as jnp

from gradkit._core import check, derivative, numbers
from gradkit._core.factory import factory
from gradkit._core.matrix import lapack, layout, stacks
from gradkit._core.types import (
    Extra,
    Hyper,
    Params,
    Scalar,
    Transform,
    Updates,
    stateless,
)


@factory
def retract_by_conditioned_low_rank(
    rank: int = 128, *, max_condition: Hyper = 2.0, batch_axes: layout.Axes = ()
) -> Transform:
    r"""Land on the nearest matrix of some rank, its singular values drawn towards their mean.

    $$p + \Delta = U \, \mathrm{diag}(s) \, V^T, \qquad \bar s = \mathrm{mean}(s_{1 \dots
      \mathrm{rank}}), \qquad e = \bar s \, \frac{\kappa - 1}{\kappa + 1}$$
    $$u = U \, \mathrm{diag}(\mathrm{clip}(s_{1 \dots \mathrm{rank}}, \bar s - e, \bar s + e))
      \, V^T - p$$

    with $\kappa$ for `max_condition`.

    Args:
        rank: singular values kept, at most the small side.
        max_condition: the largest ratio between two of them, at least 1; at 1 they are equal.
        batch_axes: see the glossary.

    Needs: params. Stands last in a chain.
    State: `0` bytes a leaf, `0` once.
    Flops: at most `8*size*min(rows, cols) + 32*size + 100` a leaf.
    Paper: Savostianova, Zangrando, Ceruti and Tudisco, "Robust low-rank training via approximate
        orthonormal constraints", arXiv:2306.01485, Algorithm 1; the band as in the authors' code.
    Departure: the parameters are the matrices; the paper keeps and trains their three factors,
        which saves memory and time.
    Limits: a singular value decomposition of every matrix at every update. A non-finite entry
        counts as zero. An update cannot be differentiated.

    >>> tx = gk.retract_by_conditioned_low_rank(rank=2, max_condition=3.0)
    >>> p = jnp.diag(jnp.array([9.0, 1.0, 0.5]))  # mean 5, band 2.5 to 7.5
    >>> q = p + tx.update(0 * p, tx.init(p), p)[0]
    >>> [round(abs(float(x)), 3) for x in jnp.diag(q)]
    [7.5, 2.5, 0.0]
    """
    name = "retract_by_conditioned_low_rank"
    if not isinstance(rank, jax.Array):  # under optax.inject_hyperparams
        check.count(name, rank=rank)
    check.at_least(name, 1, max_condition=max_condition)

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del extra
        check.matrix(name, updates, batch_axes)
        check.given(name, params)
        p = jax.tree.map(
            lambda p, u: p.astype(u.dtype), numbers.read(params), numbers.wide(updates)
        )
        reached = jax.tree.map(jnp.add, p, numbers.read(updates))
        nearest = functools.partial(condition, rank=rank, max_condition=max_condition)
        reached = derivative.refuse(name, reached)
        q = stacks.map_fat(nearest, reached, batch_axes)
        return numbers.like(jax.tree.map(jnp.subtract, q, p), updates)

    return stateless(update)


def condition(x: jax.Array, rank: int | jax.Array, max_condition: Scalar) -> jax.Array:
    """Clip the first `rank` singular values of every matrix to their band, and drop the others."""
    if not x.size:
        return x
    largest = jnp.max(jnp.abs(x), (-2, -1), keepdims=True)
    largest = jnp.where(largest > 0, numbers.divisible(largest), 1)
    u, s, v = lapack.svd(x / largest)
    kept = jnp.arange(s.shape[-1]) < rank
    s = jnp.where(kept, s, 0)
    mean = jnp.sum(s, -1, keepdims=True) / jnp.sum(kept).astype(s.dtype)
    k = jnp.asarray(max_condition, s.dtype)
    e = mean * ((k - 1) / (k + 1))
    s = jnp.where(kept, jnp.clip(s, mean - e, mean + e), 0)
    highest = jax.lax.Precision.HIGHEST
    return largest * jnp.matmul(u * s[..., None, :], v, precision=highest)
