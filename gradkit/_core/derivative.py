"""An error for derivatives through factorizations, and roots with a derivative of 0 at 0."""

from typing import Any

import jax
import jax.numpy as jnp

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
    """The cube root, with derivative 0 at 0."""
    return jnp.cbrt(x)


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
