"""An error for derivatives through factorizations, and functions with a derivative of 0 at 0."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradkit._core import numbers
from gradkit._core.call import called


def refuse(method: str, x: Any) -> Any:
    """Return the tree `x`; differentiating through it raises an error that names `method`.

    It marks the input of a factorization whose derivative is not finite if eigenvalues are equal
    or the rank is deficient. The name is read at trace time, so call this outside of jitted
    functions that several methods share.
    """

    name = called(method)

    @jax.custom_jvp
    def same(x: Any) -> Any:
        return x

    @same.defjvp
    def derivative(primals: Any, tangents: Any) -> Any:
        text = (
            "an update must not be differentiated through the matrices that are factored, which "
            "have no derivative where eigenvalues are equal, got a derivative. Stop it with "
            "jax.lax.stop_gradient at the state that is given, or else at the gradients."
        )
        raise TypeError(f"gradkit.{name}: {text}")

    return same(x)


@jax.custom_jvp
def root(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0; that of `jnp.sqrt` is infinite, or nan times 0."""
    return jnp.sqrt(x)


@root.defjvp
def _of_root(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (change,) = primals, tangents
    y = root(x)
    return y, jnp.where(y > 0, change / jnp.where(y > 0, 2 * y, 1), 0)


@jax.custom_jvp
def cube_root(x: jax.Array) -> jax.Array:
    """The cube root of `x >= 0`, with derivative 0 at 0; `jnp.cbrt` is a scalar call on a CPU."""
    positive = jnp.where(x > 0, x, 1)
    y = jnp.exp(jnp.log(positive) / 3)
    y -= (y - positive / (y * y)) / 3  # Newton's step
    return jnp.where(x > 0, y, 0)


@cube_root.defjvp
def _of_cube_root(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (change,) = primals, tangents
    y = cube_root(x)
    return y, jnp.where(y == 0, 0, change / jnp.where(y == 0, 1, 3 * y * y))


@jax.custom_jvp
def hypot(x: jax.Array, y: jax.Array) -> jax.Array:
    r"""$\sqrt{x^2 + y^2}$ without overflow, with derivative 0 at (0, 0)."""
    return jnp.hypot(x, y)


@hypot.defjvp
def _of_hypot(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x, y), (dx, dy) = primals, tangents
    length = hypot(x, y)
    divisor = jnp.where(length > 0, length, 1)
    return length, x / divisor * dx + y / divisor * dy


@jax.custom_jvp
def angle(y: jax.Array, x: jax.Array) -> jax.Array:
    """`atan2(y, x)` for `x > 0` by a polynomial; `jnp.arctan2` is a scalar call on a CPU.

    At `y = 0` it is 0, whatever `x`.
    """
    tangent = numbers.recomputed(jnp.abs(y) / jnp.maximum(x, jnp.finfo(x.dtype).tiny))
    steep = tangent > 1
    tangent = jnp.where(steep, 1 / tangent, tangent)
    square, ratio = jnp.square(tangent), jnp.zeros_like(tangent)
    for a in _arctangent(8 if jnp.finfo(x.dtype).bits == 32 else 20)[::-1]:
        ratio = a + square * ratio
    flat = tangent * ratio
    whole = jnp.where(steep, math.pi / 2 - flat, flat)
    return jnp.where(y < 0, -whole, whole)


@functools.cache
def _arctangent(degree: int) -> list[float]:
    """Coefficients of `arctan(t) / t` in powers of `t^2`, near the best in [0, 1].

    Errors are 1e-8 at degree 8 and 4e-15 at degree 20.
    """

    def ratio(square: np.ndarray) -> np.ndarray:
        t = np.sqrt(square)
        return np.arctan(t) / t

    fit = np.polynomial.Chebyshev.interpolate(ratio, degree, domain=[0, 1])
    return fit.convert(kind=np.polynomial.Polynomial).coef.tolist()


@angle.defjvp
def _of_angle(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (y, x), (dy, dx) = primals, tangents
    length = hypot(x, y)
    divisor = jnp.where(length > 0, length, 1)
    turn = (x / divisor * dy - y / divisor * dx) / divisor
    return angle(y, x), jnp.where(length > 0, turn, 0)
