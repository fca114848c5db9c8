"""Realignment of moments when a basis is renewed: rotation as in LDAdam, or a reset."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers, tree
from gradkit._core.factory import part
from gradkit._core.types import AnyTransform, Scalar
from gradkit.subspace.parts import BasisChange, Realign, is_change


@part
def rotate_moments(b1: Scalar = 0.9, *, b2: Scalar = 0.999) -> Realign:
    r"""Rotate the moments `mu` and `nu` that `inner` keeps into the new basis.

    $$m \leftarrow C m, \qquad
      v \leftarrow |C^{\circ 2} (v - w \, m^{\circ 2}) + w \, (C m)^{\circ 2}|, \qquad
      w = \frac{1 - b_2^t}{(1 - b_1^t)^2}$$

    with $C = P_t^T P_{t-1}$: means and variances are rotated with the basis, as if the entries of
    one column had no covariance.

    Args:
        b1: decay of the EMAs `mu`.
        b2: decay of the EMAs of squares `nu`.

    Paper: Robert, Safaryan, Modoranu and Alistarh, "LDAdam: Adaptive Optimization from
        Low-Dimensional Gradient Statistics", arXiv:2410.16103, Algorithm 1.
    Limits: a `store_by_` whose codes are whole numbers belongs around the projection, not in
        it: codes cannot be rotated, and an error says so, as for moments of another shape than
        the projected gradient's.
    """
    check.interval("subspace.rotate_moments", "[0, 1)", b1=b1, b2=b2)

    def realign(state: optax.OptState, changes: Any, count: jax.Array) -> Any:
        def leaf(change: BasisChange, m: Any, v: Any) -> tuple[Any, Any]:
            if isinstance(m, optax.MaskedNode):
                return m, v
            check.holds(
                "subspace.rotate_moments",
                numbers.is_real(m) and numbers.is_real(v),
                "the moments mu and nu of inner must be real numbers",
                f"{m.dtype} and {v.dtype}, codes of a store_by_",
                "Put that around the projection.",
            )
            alike = m.shape == v.shape == change.r.shape
            check.holds(
                "subspace.rotate_moments",
                alike,
                f"the moments mu and nu of inner must have the shape {change.r.shape} of a "
                "projected gradient",
                f"{m.shape} and {v.shape}",
                "Take an inner transform that does not project or reduce once more.",
            )
            kept, (m, v) = (m, v), numbers.like((m, v), (change.r, change.r))
            bias1, bias2 = (
                numbers.one_minus_power(b, count, m.dtype) for b in (b1, b2)
            )
            w = bias2 / jnp.square(bias1)
            mean = change.rotate(m, change.c)
            variance = change.rotate(v - w * jnp.square(m), jnp.square(change.c))
            return numbers.like((mean, jnp.abs(variance + w * jnp.square(mean))), kept)

        def rotated(x: Any) -> Any:
            pairs = jax.tree.map(leaf, changes, x.mu, x.nu, is_leaf=is_change)
            part = lambda i: jax.tree.map(
                lambda _, parts: parts[i], changes, pairs, is_leaf=is_change
            )
            return x._replace(mu=part(0), nu=part(1))

        has_moments = lambda x: hasattr(x, "mu") and hasattr(x, "nu")
        return jax.tree.map(
            lambda x: rotated(x) if has_moments(x) else x, state, is_leaf=has_moments
        )

    return realign


@part
def reset_moments(inner: AnyTransform) -> Realign:
    """Reset the state of `inner`, for all leaves as soon as one has a new basis.

    Args:
        inner: the transform that is given the projections.

    Paper: Nguyen and Nguyen, "Efficient Adaptive Optimization via Subset-Norm and
        Subspace-Momentum", arXiv:2411.07120.
    """

    def realign(state: optax.OptState, changes: Any, count: jax.Array) -> Any:
        projections = jax.tree.map(lambda x: x.r, changes, is_leaf=is_change)
        return inner.init(tree.zeros(projections))

    return realign
