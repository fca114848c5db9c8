"""SalUn: a whole chain, on the weights that the data to forget would move most."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, largest, numbers, tree
from gradkit._core.condition import varying_as, when
from gradkit._core.factory import factory
from gradkit._core.types import (
    AnyTransform,
    Extra,
    Hyper,
    Params,
    Transform,
    Updates,
    transform,
)


class SaliencyState(NamedTuple):
    """State of `mask_by_saliency`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # sum of the first gradients, like the parameters
    threshold: jax.Array  # the least kept size of `mu`, []; at first the largest float
    inner: optax.OptState


@factory
def mask_by_saliency(
    inner: AnyTransform, *, density: Hyper = 0.5, samples: Hyper = 1
) -> Transform:
    r"""Let `inner` move only entries whose first gradients had the largest sum.

    $$m_i = [\, |{\textstyle \sum_{t \le \mathrm{samples}}} g_{t,i}| \ge T \,], \qquad
      u_t = \begin{cases} 0 & t \le \mathrm{samples} \\ m \cdot \mathrm{inner}(g_t)
      & \text{else} \end{cases}$$

    with $T$ such that a fraction `density` of the entries of all leaves together is kept.

    Args:
        inner: any transform, such as a whole chain with its learning rate and decay.
        density: fraction of the entries of the whole tree that is ever moved.
        samples: number of first gradients, of the loss on the data to forget. They move
            nothing, so that all are taken at the first weights.

    Needs: what `inner` needs.
    State: `4*size` bytes a leaf, `8` once, and the state of `inner`.
    Flops: at most `24*size + 20` a leaf, `1000` once, and those of `inner`.
    Paper: Fan and others, "SalUn: Empowering Machine Unlearning via Gradient-based Weight
        Saliency in Both Image Classification and Generation", arXiv:2310.12508.
    Departure: an entry without any gradient is not kept; the authors' code keeps a fraction of
        all entries, whatever their gradients. The number kept is rounded, and at least 1; the
        authors' code truncates it. Entries outside the mask do not move at all, as in the
        authors' later code; their first code masked gradients alone, so that decay moved them.
    Limits: under `optax.partition` every group has a mask of its own.

    >>> tx = gk.mask_by_saliency(optax.sgd(1.0), density=0.5)
    >>> _, state = tx.update(jnp.array([1.0, -4.0]), tx.init(jnp.zeros(2)))
    >>> tx.update(jnp.array([5.0, 1.0]), state)[0].tolist()
    [0.0, -1.0]
    """
    check.interval("mask_by_saliency", "(0, 1]", density=density)
    check.positive("mask_by_saliency", samples=samples)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> SaliencyState:
        dtype = tree.zero_per_leaf(params).dtype
        largest_number = varying_as(jnp.full([], jnp.finfo(dtype).max, dtype), params)
        step = jnp.zeros([], jnp.int32)
        return SaliencyState(
            step, tree.zeros(params), largest_number, inner.init(params)
        )

    def update(
        updates: Updates, state: SaliencyState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, SaliencyState]:
        g = numbers.read(updates)
        step = numbers.increment(state.count)
        required = jnp.asarray(samples, jnp.float32)
        counting = state.count.astype(jnp.float32) < required
        complete = step.astype(jnp.float32) >= required

        def add(old: jax.Array, new: jax.Array) -> jax.Array:
            most = jnp.finfo(old.dtype).max
            total = jnp.clip(old + new.astype(old.dtype), -most, most)
            return jnp.where(counting, total, old)

        mu = jax.tree.map(add, state.mu, g)
        new_threshold = lambda old: largest.threshold(mu, density).astype(old.dtype)
        threshold = when(complete & counting, new_threshold, state.threshold)

        def move(
            stay: tuple[Updates, optax.OptState],
        ) -> tuple[Updates, optax.OptState]:
            u, inner_state = inner.update(g, stay[1], params, **extra)
            return jax.tree.map(keep, numbers.like(u, updates), mu), inner_state

        def keep(x: jax.Array, m: jax.Array) -> jax.Array:
            kept = (jnp.abs(m) >= threshold.astype(m.dtype)) & (m != 0)
            return jnp.where(kept, x, 0)

        stay = jax.tree.map(jnp.zeros_like, updates), state.inner
        u, inner_state = when(~counting, move, stay)
        return u, SaliencyState(step, mu, threshold, inner_state)

    return transform(init, update)
