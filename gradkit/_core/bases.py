"""How a few directions of a matrix are found: singular vectors, random ones, cosines."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import batch, linalg, tree
from gradkit._core.types import Scalar

Kept = jax.Array  # what is kept of a basis, [*batch, ..., rank]
OVERSAMPLE = 8  # columns that a range finder draws besides the rank


class Basis(NamedTuple):
    """How a basis is found. `g` is wide: `[*batch, small, large]`."""

    start: Callable[[tuple[int, ...], Any, jax.Array], Kept]  # shape, dtype, key
    renew: Callable[
        [Sequence[Kept], Sequence[jax.Array], Any], list[Kept]
    ]  # kept, g, key
    vectors: Callable[[Kept, int, Any], jax.Array]  # kept, small, dtype: `p`


def principal() -> Basis:
    """The first left singular vectors of the gradient."""

    def renew(kept: Sequence[Kept], gs: Sequence[jax.Array], key: Any) -> list[Kept]:
        rank = max((k.shape[-1] for k in kept), default=0)
        return batch.map_shapes(
            functools.partial(linalg.principal_basis, rank=rank), gs
        )

    return Basis(_zeros, renew, _itself)


def in_range() -> Basis:
    """About the first left singular vectors, found in the range of a few columns.

    `g` times a Gaussian matrix spans nearly what the first singular vectors span.
    """

    def renew(kept: Kept, g: jax.Array, key: jax.Array) -> Kept:
        columns = min(kept.shape[-1] + OVERSAMPLE, g.shape[-2])
        gaussian = jax.random.normal(
            key, (*g.shape[:-2], g.shape[-1], columns), g.dtype
        )
        q = orthonormal(g @ gaussian)
        return signed(q @ linalg.principal_basis(q.mT @ g, kept.shape[-1]))

    return Basis(_zeros, _each(renew), _itself)


def by_power() -> Basis:
    """One step of subspace iteration from the basis before: `g g^T p`, made orthonormal."""

    def start(shape: tuple[int, ...], dtype: Any, key: Any) -> Kept:
        return orthonormal(jax.random.normal(key, shape, dtype))

    def renew(kept: Kept, g: jax.Array, key: Any) -> Kept:
        return orthonormal(g @ (g.mT @ kept))

    return Basis(start, _each(renew), _itself)


def random_walk(angle: Scalar) -> Basis:
    """A geodesic of the Grassmann manifold in a random direction, from the singular vectors.

    `angle` is about the largest angle between the old basis and the new one.
    """

    def renew(kept: Kept, g: jax.Array, key: jax.Array) -> Kept:
        def walk() -> Kept:
            z = jax.random.normal(key, kept.shape, kept.dtype)
            x = z - kept @ (kept.mT @ z)
            x = angle * x / jnp.sqrt(jnp.asarray(x.shape[-2], x.dtype))
            return orthonormal(geodesic(kept, x))

        first = jnp.all(kept == 0)
        return jax.lax.cond(
            first, lambda: linalg.principal_basis(g, kept.shape[-1]), walk
        )

    return Basis(_zeros, _each(renew), _itself)


def random_jump() -> Basis:
    """A basis drawn anew, all alike likely."""

    def renew(kept: Kept, g: jax.Array, key: jax.Array) -> Kept:
        return orthonormal(jax.random.normal(key, kept.shape, kept.dtype))

    return Basis(_zeros, _each(renew), _itself)


def gaussian() -> Basis:
    """Independent normal vectors of variance `1 / rank`; kept are their seeds."""

    def start(shape: tuple[int, ...], dtype: Any, key: Any) -> Kept:
        return jnp.zeros((*shape[:-2], shape[-1]), jnp.uint32)

    def renew(kept: Kept, g: jax.Array, key: jax.Array) -> Kept:
        return jax.random.bits(key, kept.shape, jnp.uint32)

    def vectors(kept: Kept, small: int, dtype: Any) -> jax.Array:
        draw = lambda seed: jax.random.normal(jax.random.key(seed), (small,), dtype)
        rows = jax.vmap(draw)(kept.ravel()).reshape(*kept.shape, small)
        return rows.mT / jnp.sqrt(jnp.asarray(kept.shape[-1], dtype))

    return Basis(start, _each(renew), vectors)


def cosines() -> Basis:
    """The cosines of the discrete cosine transform with most energy; kept are their numbers."""

    def start(shape: tuple[int, ...], dtype: Any, key: Any) -> Kept:
        return jnp.zeros((*shape[:-2], shape[-1]), jnp.int32)

    def renew(kept: Kept, g: jax.Array, key: Any) -> Kept:
        small = g.shape[-2]
        spectrum = _cosines(jnp.arange(small), small, g.dtype).mT @ g
        energy = jnp.sum(jnp.square(spectrum), axis=-1)
        return jax.lax.top_k(energy, kept.shape[-1])[1]

    return Basis(start, _each(renew), _cosines)


def orthonormal(x: jax.Array) -> jax.Array:
    """Orthonormal columns that span those of `x`, each turned to its own side."""
    q, r = jnp.linalg.qr(x)
    diagonal = jnp.diagonal(r, axis1=-2, axis2=-1)[..., None, :]
    return jnp.where(diagonal < 0, -q, q)


def signed(p: jax.Array) -> jax.Array:
    """`p` with the entry of largest size in each column positive, the first of several."""
    first = jnp.argmax(jnp.abs(p), axis=-2, keepdims=True)
    return jnp.where(jnp.take_along_axis(p, first, axis=-2) < 0, -p, p)


def geodesic(p: jax.Array, x: jax.Array) -> jax.Array:
    """Where the geodesic from the basis `p` ends that begins as `x`, with `p^T x = 0`.

    `p cos(s) + x sin(s) / s` with `s` the root of `x^T x`.
    """
    squares, v = jnp.linalg.eigh(x.mT @ x)
    s = jnp.sqrt(jnp.maximum(squares, 0))[..., None, :]
    return (p @ (v * jnp.cos(s)) + x @ (v * jnp.sinc(s / jnp.pi))) @ v.mT


def _cosines(numbers: jax.Array, small: int, dtype: Any) -> jax.Array:
    """Columns of the orthonormal cosine transform of type II, `[*batch, small, numbers]`."""
    numbers = numbers[..., None, :]
    i = jax.lax.broadcasted_iota(
        numbers.dtype, (*numbers.shape[:-2], small, numbers.shape[-1]), numbers.ndim - 2
    )
    quarters = (2 * i + 1) * numbers % max(4 * small, 1)  # exact, unlike floats
    length = jnp.sqrt(jnp.where(numbers == 0, 1, 2).astype(dtype) / max(small, 1))
    waves = jnp.cos(quarters.astype(dtype) * (jnp.pi / max(2 * small, 1)))
    return length * waves


def _zeros(shape: tuple[int, ...], dtype: Any, key: Any) -> Kept:
    return jnp.zeros(shape, dtype)


def _itself(kept: Kept, small: int, dtype: Any) -> jax.Array:
    return kept


def _each(renew: Callable[..., Kept]) -> Callable[..., list[Kept]]:
    """`renew` of one leaf, as that of many: `g` on the scale of 1, and a key for each."""

    def renew_all(kept: Sequence[Kept], gs: Sequence[jax.Array], key: Any):
        def one(i: int, k: Kept, g: jax.Array) -> Kept:
            largest = tree.divisible(jnp.max(jnp.abs(g)))
            own = None if key is None else jax.random.fold_in(key, i)
            return renew(k, g / largest, own)

        return [one(i, k, g) if g.size else k for i, (k, g) in enumerate(zip(kept, gs))]

    return renew_all
