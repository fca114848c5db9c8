"""A fixed basis, the cosines, of which only the numbers of a few are kept."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit.subspace import bases
from gradkit.subspace.bases import Basis, Kept


def dct() -> Basis:
    r"""The cosines in which the gradient has most energy; only their numbers are kept.

    $$C_{ik} = \sqrt{2 / m} \cos(\pi (2i + 1) k / 2m), \qquad C_{i0} = \sqrt{1 / m}$$

    Paper: Modoranu and others, "FFT-based Dynamic Subspace Selection for Low-Rank Adaptive
        Optimization of Large Language Models", arXiv:2505.17967.
    """

    def start(shape: tuple[int, ...], dtype: Any, key: Any) -> Kept:
        return jnp.zeros((*shape[:-2], shape[-1]), jnp.int32)

    def renew(kept: Kept, g: jax.Array, key: Any) -> Kept:
        seen = g.shape[-2]
        spectrum = waves(jnp.arange(seen), seen, g.dtype).mT @ g
        energy = jnp.sum(jnp.square(spectrum), axis=-1)
        return jax.lax.top_k(energy, kept.shape[-1])[1]

    return Basis(start, bases.each(renew), waves, draws=False)


def waves(numbers: jax.Array, seen: int, dtype: Any) -> jax.Array:
    """Columns of the orthonormal cosine transform of type II, `[*batch, seen, numbers]`."""
    numbers = numbers[..., None, :]
    shape = (*numbers.shape[:-2], seen, numbers.shape[-1])
    i = jax.lax.broadcasted_iota(numbers.dtype, shape, numbers.ndim - 2)
    quarters = (2 * i + 1) * numbers % max(4 * seen, 1)  # exact, unlike floats
    length = jnp.sqrt(jnp.where(numbers == 0, 1, 2).astype(dtype) / max(seen, 1))
    cosine = jnp.cos(quarters.astype(dtype) * (jnp.pi / max(2 * seen, 1)))
    return length * cosine
