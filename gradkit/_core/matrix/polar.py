"""Polar factors of `[*batch, small, large]` by Newton-Schulz iterations."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from gradkit._core import norms
from gradkit._core.matrix import layout, newton_schulz
from gradkit._core.types import Scalar


@functools.partial(jax.jit, static_argnames=("coefficients", "dtype"))
def polar_factor(
    x: layout.Matrices,
    eps: Scalar,
    coefficients: newton_schulz.Coefficients = newton_schulz.JORDAN,
    dtype: Any = None,
) -> layout.Matrices:
    r"""Approximate the polar factor, the nearest matrix with orthonormal rows.

    Newton-Schulz steps $X \leftarrow (aI + bR + cR^2) X$, $R = XX^T$, from $X = x /
    (\lVert x \rVert_F + \mathrm{eps})$, are done in `dtype`. A zero matrix stays zero.
    """
    size = norms.along(x, (-2, -1)) + jnp.asarray(eps, x.dtype)
    unit = (x / jnp.where(size > 0, size, 1)).astype(dtype or x.dtype)
    for run in runs(coefficients, unit.shape, unit.dtype):
        unit = multiplier(unit @ unit.mT, run) @ unit
    return unit.astype(x.dtype)


def multiplier(r: jax.Array, run: newton_schulz.Coefficients) -> jax.Array:
    """The matrix by which the steps of `run` multiply $X$, from its Gram matrix `r`."""
    identity = jnp.broadcast_to(jnp.eye(r.shape[-1], dtype=r.dtype), r.shape)
    q = identity
    for i, (a, b, c) in enumerate(run):
        p = a * identity + (b * r + c * (r @ r) if c else b * r)
        q = p @ q if i else p
        r = p @ r @ p if i + 1 < len(run) else r
    return q


def runs(
    coefficients: newton_schulz.Coefficients, shape: tuple[int, ...], dtype: Any
) -> list[newton_schulz.Coefficients]:
    """Group the steps into runs that share one Gram matrix, as long as cost and rounding allow.

    A new Gram matrix costs `2 * large / small` products of small matrices and saves three. In a
    step, its rounding errors at small singular values grow by `a^2`. A run ends once they have
    grown by more than `1 / sqrt(eps)`.
    """
    small, large = shape[-2:]
    limit = 0 if 2 * large <= 3 * small else rounding(dtype) ** -0.5
    groups, growth = [], math.inf
    for triple in coefficients:
        if growth > limit:
            groups, growth = [*groups, ()], 1
        groups[-1], growth = (*groups[-1], triple), growth * triple[0] ** 2
    return groups


def rounding(dtype: Any) -> float:
    """The relative error of a product; accelerators may round float32 inputs to bfloat16."""
    exact = jax.default_backend() == "cpu" or jax.default_matmul_precision.value
    as_if = dtype if exact or dtype != jnp.float32 else jnp.bfloat16
    return float(jnp.finfo(as_if).eps)
