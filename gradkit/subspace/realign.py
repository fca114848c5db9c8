"""What a transform remembers of an old basis in the new one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, numbers, tree
from gradkit._core.factory import part
from gradkit._core.types import AnyTransform, Scalar


class BasisChange(NamedTuple):
    """How one leaf changes its basis; what is seen of it is `[rank, cols]` or `[rows, rank]`."""

    r: jax.Array  # what `inner` sees of it now
    c: jax.Array  # `new^T old`, [*batch, rank, rank]; the identity if it is not renewed
    side: int  # the axis of `r` that is the rank

    def of(self, x: jax.Array, c: jax.Array) -> jax.Array:
        """`x`, shaped like `r`, times `c` along the rank."""
        return c @ x if self.side == -2 else x @ c.mT


# Of the state of `inner`, a tree like the parameters of turns, and the updates so far.
Realign = Callable[[optax.OptState, Any, jax.Array], optax.OptState]


@part
def rotate_moments(b1: Scalar = 0.9, *, b2: Scalar = 0.999) -> Realign:
    r"""Averages `mu` and average squares `nu` that `inner` keeps, as if of the new basis.

    $$m \leftarrow C m, \qquad
      v \leftarrow |C^{\circ 2} (v - w \, m^{\circ 2}) + w \, (C m)^{\circ 2}|, \qquad
      w = \frac{1 - b_2^t}{(1 - b_1^t)^2}$$

    with $C = P_t^T P_{t-1}$: means and variances turn with the basis; the covariance of different
    columns counts as none.

    Args:
        b1: decay of the averages `mu`.
        b2: decay of the average squares `nu`.

    Paper: Robert, Safaryan, Modoranu and Alistarh, "LDAdam: Adaptive Optimization from
        Low-Dimensional Gradient Statistics", arXiv:2410.16103, Algorithm 1.
    """
    check.fraction("subspace.rotate_moments", b1=b1, b2=b2)

    def align(state: optax.OptState, turns: Any, step: jax.Array) -> optax.OptState:
        def averages(x: Any) -> Any:
            both = jax.tree.map(leaf, turns, x.mu, x.nu, is_leaf=_is_turn)
            part = lambda i: jax.tree.map(
                lambda _, parts: parts[i], turns, both, is_leaf=_is_turn
            )
            return x._replace(mu=part(0), nu=part(1))

        def leaf(t: BasisChange, m: Any, v: Any) -> tuple[Any, Any]:
            if isinstance(m, optax.MaskedNode):
                return m, v
            weight = lambda b: numbers.one_minus_power(b, step, m.dtype)
            w = weight(b2) / jnp.square(weight(b1))
            mean = t.of(m, t.c)
            variance = t.of(v - w * jnp.square(m), jnp.square(t.c))
            return mean, jnp.abs(variance + w * jnp.square(mean))

        moments = lambda x: hasattr(x, "mu") and hasattr(x, "nu")
        return jax.tree.map(
            lambda x: averages(x) if moments(x) else x, state, is_leaf=moments
        )

    return align


@part
def reset_moments(inner: AnyTransform) -> Realign:
    """Nothing: `inner` begins again, for all leaves as soon as one has a new basis.

    Args:
        inner: the transform that sees the gradient in the basis.

    Paper: Nguyen and Nguyen, "Efficient Adaptive Optimization via Subset-Norm and
        Subspace-Momentum", arXiv:2411.07120.
    """

    def align(state: optax.OptState, turns: Any, step: jax.Array) -> optax.OptState:
        seen = jax.tree.map(lambda t: t.r, turns, is_leaf=_is_turn)
        return inner.init(tree.zeros(seen))

    return align


def _is_turn(x: Any) -> bool:
    return isinstance(x, BasisChange)
