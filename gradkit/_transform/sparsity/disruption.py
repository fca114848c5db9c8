"""MUDMAN's mask: only entries whose sign agrees with the gradient to retain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, norms, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class DisruptionState(NamedTuple):
    """State of `mask_by_disruption`."""

    mu: Updates  # EMA of the gradient of the retained loss, like the parameters


@factory
def mask_by_disruption(decay: Hyper = 0.9) -> Transform:
    r"""Keep entries with the sign of the EMA of retained gradients; divide by the gradient's norm.

    $$r_t = \mathrm{decay} \, r_{t-1} + (1 - \mathrm{decay}) \, \mathrm{retain}_t, \qquad
      u_t = g_t \, [\, \mathrm{sign}(g_t) = \mathrm{sign}(r_t) \,] \, / \, \lVert g_t \rVert$$

    The norm is that of the whole gradient before the mask.

    Args:
        decay: decay of the EMA of retained gradients.

    Needs: `retain_gradient`, a tree like the gradients: the gradient of the loss that is to stay
        low. Without it, the gradient itself is used. `global_norm`, where given and finite,
        stands for the norm of the gradient.
    State: `4*size` bytes a leaf, `0` once.
    Flops: at most `21*size + 20` a leaf, `20` once.
    Paper: Sondej, Yang, Kniejski and Windys, "Robust LLM Unlearning with MUDMAN: Meta-Unlearning
        with Disruption Masking And Normalization", arXiv:2506.12484; the authors' simplified
        code.
    Departure: this is its mask and norm alone. The adversary whose gradient is masked, and the
        step along `r` that retains, belong to the loop.
    Limits: entries whose `r` is zero do not move.

    >>> tx = gk.mask_by_disruption()
    >>> g, keep = jnp.array([3.0, -4.0]), jnp.array([0.1, 0.1])
    >>> print(tx.update(g, tx.init(g), retain_gradient=keep)[0])
    [0.6 0. ]
    """
    check.interval("mask_by_disruption", "[0, 1)", decay=decay)

    def init(params: Params) -> DisruptionState:
        return DisruptionState(tree.zeros(params))

    def update(
        updates: Updates,
        state: DisruptionState,
        params: Params = None,
        *,
        retain_gradient: Updates | None = None,
        global_norm: jax.Array | None = None,
        **extra: Extra,
    ) -> tuple[Updates, DisruptionState]:
        del params, extra
        g = numbers.read(updates)
        retain = g if retain_gradient is None else numbers.read(retain_gradient)
        mu = tree.ema(decay, state.mu, retain)
        norm = norms.given_or(norms.of_tree(g), global_norm)
        divisor = jnp.where(norm > 0, numbers.divisible(norm), 1)

        def keep(x: jax.Array, r: jax.Array) -> jax.Array:
            agrees = jnp.sign(x) == jnp.sign(r).astype(x.dtype)
            return jnp.where(agrees, x / divisor.astype(x.dtype), 0)

        u = jax.tree.map(keep, g, mu)
        return numbers.like(u, updates), DisruptionState(mu)

    return transform(init, update)
