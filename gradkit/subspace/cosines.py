"""Columns of the discrete cosine transform as a basis, kept as indices."""

from typing import Any

import jax
import jax.numpy as jnp

from gradkit.subspace import bases
from gradkit.subspace.parts import Basis, BasisState


def dct() -> Basis:
    r"""The columns of the discrete cosine transform in which the gradient has the most energy.

    $$C_{ik} = \sqrt{2 / m} \cos(\pi (2i + 1) k / 2m), \qquad C_{i0} = \sqrt{1 / m}$$

    Only the indices $k$ of the chosen columns are kept.

    Paper: Modoranu and others, "FFT-based Dynamic Subspace Selection for Low-Rank Adaptive
        Optimization of Large Language Models", arXiv:2505.17967.
    """

    def init(shape: tuple[int, ...], dtype: Any, key: Any) -> jax.Array:
        return jnp.zeros((*shape[:-2], shape[-1]), jnp.int32)

    def renew(state: BasisState, g: jax.Array, key: Any) -> jax.Array:
        rows = g.shape[-2]
        spectrum = cosines(jnp.arange(rows), rows, g.dtype).mT @ g
        energy = jnp.sum(jnp.square(spectrum), axis=-1)
        return jax.lax.top_k(energy, state.data.shape[-1])[1]

    return Basis(init, bases.each(renew), cosines, draws=False)


def cosines(indices: jax.Array, rows: int, dtype: Any) -> jax.Array:
    """Columns `indices` of the orthonormal DCT-II, `[*batch, rows, indices]`."""
    k = indices[..., None, :]
    shape = (*k.shape[:-2], rows, k.shape[-1])
    i = jax.lax.broadcasted_iota(k.dtype, shape, k.ndim - 2)
    phase = (2 * i + 1) * k % max(4 * rows, 1)  # exact, unlike floats
    length = jnp.sqrt(jnp.where(k == 0, 1, 2).astype(dtype) / max(rows, 1))
    return length * jnp.cos(phase.astype(dtype) * (jnp.pi / max(2 * rows, 1)))
