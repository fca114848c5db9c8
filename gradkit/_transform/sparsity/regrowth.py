"""RigL: sparse weights; now and then small ones are pruned and others regrown."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gradkit._core import check, largest, numbers
from gradkit._core.condition import when
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


class RegrowthState(NamedTuple):
    """State of `mask_by_regrowth`."""

    count: jax.Array  # updates so far, int32 []
    mask: Any  # bool, like the parameters: whether the weight is active
    inner: optax.OptState


@factory
def mask_by_regrowth(
    inner: AnyTransform,
    *,
    density: Hyper = 0.2,
    every: Hyper = 100,
    fraction: Hyper = 0.3,
    until: Hyper = 25_000.0,
) -> Transform:
    r"""Let `inner` train a fraction of the weights, all others zero; now and then change which.

    At intervals the smallest $n_t$ of the $k = \mathrm{density} \cdot \mathrm{size}$ active
    weights of a leaf are pruned. As many of all inactive ones, those with the largest gradients,
    become active, starting from zero:

    $$n_t = \tfrac{1}{2} \mathrm{fraction} \, (1 + \cos(\pi t / \mathrm{until})) \, k, \qquad
      u = \begin{cases} \mathrm{inner}(m \, g) & m = 1 \\ -p & m = 0 \end{cases}$$

    Args:
        inner: a whole chain with its learning rate; is given the gradients of active weights.
        density: fraction of the weights of each leaf that is active.
        every: updates between two changes of the mask.
        fraction: the fraction of active weights that changes at first.
        until: the update from which the mask is fixed.

    Needs: params, and what `inner` needs. Stands last: it sets weights to zero.
    State: `size` bytes a leaf, `4` once, and the state of `inner`.
    Flops: at most `70*size + 100` a leaf, `800` once, and those of `inner`.
    Paper: Yildirim and others, "Continual Learning with Dynamic Sparse Training: Exploring
        Algorithms for Effective Model Updates", arXiv:2308.14831, with RigL's growth: Evci
        and others, arXiv:1911.11134, Algorithm 1.
    Departure: the first active weights are the largest of each leaf, not random ones. All leaves
        have the same density: set other densities with `gradkit.route`. Leaves of fewer than
        two axes are dense. An update that changes the mask also trains. `inner` keeps its state of
        a pruned weight, and is given a gradient of zero until the weight is active again.
    Limits: saves no memory or time by itself: inactive weights are stored as zeros.

    >>> tx = gk.mask_by_regrowth(optax.sgd(0.5), density=0.5)
    >>> p, g = jnp.array([[4.0, 1.0, -3.0, 2.0]]), jnp.ones((1, 4))
    >>> (p + tx.update(g, tx.init(p), p)[0]).tolist()
    [[3.5, 0.0, -3.5, 0.0]]
    """
    check.interval("mask_by_regrowth", "(0, 1]", density=density, fraction=fraction)
    check.positive("mask_by_regrowth", every=every, until=until)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> RegrowthState:
        everything = jax.tree.map(lambda p: jnp.ones_like(p, dtype=bool), params)
        return RegrowthState(jnp.zeros([], jnp.int32), everything, inner.init(params))

    def update(
        updates: Updates, state: RegrowthState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, RegrowthState]:
        check.given("mask_by_regrowth", params)
        gs, structure = jax.tree.flatten(numbers.read(updates))
        ps, masks = jax.tree.leaves(numbers.read(params)), jax.tree.leaves(state.mask)
        sparse = [i for i, g in enumerate(gs) if g.ndim > 1]
        time = state.count.astype(jnp.result_type(float)) / until
        changing = fraction / 2 * (1 + jnp.cos(jnp.pi * jnp.minimum(time, 1)))

        def change(old: list[jax.Array]) -> list[jax.Array]:
            k = largest.count(density, [gs[i].size for i in sparse])
            pruned = jnp.where(state.count > 0, jnp.round(changing * k), 0)
            kept = largest.largest([ps[i] for i in sparse], old, k - pruned)
            free = [~m for m in kept]
            new = largest.largest([gs[i] for i in sparse], free, pruned)
            return [a | b for a, b in zip(kept, new)]

        due = (state.count == 0) | ((state.count % every == 0) & (time < 1))
        changed = when(due, change, [masks[i] for i in sparse])
        for i, m in zip(sparse, changed):
            masks[i] = m

        masked = structure.unflatten(jnp.where(m, g, 0) for m, g in zip(masks, gs))
        inner_updates, inner_state = inner.update(masked, state.inner, params, **extra)
        u = structure.unflatten(
            jnp.where(m, x, -p.astype(x.dtype))
            for m, x, p in zip(masks, jax.tree.leaves(inner_updates), ps)
        )
        mask = jax.tree.structure(state.mask).unflatten(masks)
        step = numbers.increment(state.count)
        return numbers.like(u, updates), RegrowthState(step, mask, inner_state)

    return transform(init, update)
