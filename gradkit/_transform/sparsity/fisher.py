"""FISH: one mask for the whole run, from the Fisher information of the first weights."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, largest, numbers, tree
from gradkit._core.condition import varying_as, when
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class FisherState(NamedTuple):
    """State of `mask_by_fisher`."""

    count: jax.Array  # updates so far, int32 []
    nu: Updates  # root of the sum of squares of the first gradients, like the parameters
    threshold: jax.Array  # the least kept root, []; at first the largest float


@factory
def mask_by_fisher(density: Hyper = 0.005, *, samples: Hyper = 1024) -> Transform:
    r"""Keep the entries with the largest mean squared gradient, of all leaves together.

    $$F_i = \frac{1}{\mathrm{samples}} \sum_{t \le \mathrm{samples}} g_{t,i}^2, \qquad
      u_{t,i} = \begin{cases} 0 & t \le \mathrm{samples} \\
      g_{t,i} \, [\, F_i \ge T,\ F_i > 0 \,] & \text{else} \end{cases}$$

    with $T$ such that a fraction `density` of all entries is kept.

    Args:
        density: fraction of the entries of the whole tree that is ever moved.
        samples: number of gradients that are summed first. They move nothing, so that all
            are taken at the first weights.

    Needs: nothing; `fisher_diagonal`, like the gradients, where given, stands for the square
        of the gradient: such as the mean of squares over the examples of a batch.
    State: `4*size` bytes a leaf, `8` once.
    Flops: at most `40*size + 20` a leaf, `1000` once.
    Paper: Sung, Nair and Raffel, "Training Neural Networks with Fixed Sparse Masks",
        arXiv:2111.09839.
    Departure: squares the gradient of each batch; the paper squares those of single examples. An
        entry that never had a gradient is not kept. The number kept is rounded, and at least 1,
        where the authors' code truncates it. The paper always trains a new classifier: send it
        elsewhere with `gradkit.route`.
    Limits: the squared mean gradient of a batch is less than the mean squared one of its
        examples, and ranks entries differently. Under `optax.partition` every group has a mask
        of its own. Decay that comes after moves the entries left out.

    >>> tx = gk.mask_by_fisher(density=0.5, samples=1)
    >>> u, state = tx.update(jnp.array([1.0, -4.0]), tx.init(jnp.zeros(2)))
    >>> u.tolist(), tx.update(jnp.array([5.0, 1.0]), state)[0].tolist()
    ([0.0, 0.0], [0.0, 1.0])
    """
    check.interval("mask_by_fisher", "(0, 1]", density=density)
    check.positive("mask_by_fisher", samples=samples)

    def init(params: Params) -> FisherState:
        dtype = tree.zero_per_leaf(params).dtype
        largest_number = varying_as(jnp.full([], jnp.finfo(dtype).max, dtype), params)
        return FisherState(jnp.zeros([], jnp.int32), tree.zeros(params), largest_number)

    def update(
        updates: Updates,
        state: FisherState,
        params: Params = None,
        *,
        fisher_diagonal: Updates | None = None,
        **extra: Extra,
    ) -> tuple[Updates, FisherState]:
        del params, extra
        g = numbers.read(updates)
        step = numbers.increment(state.count)
        required = jnp.asarray(samples, jnp.float32)
        counting = state.count.astype(jnp.float32) < required
        complete = step.astype(jnp.float32) >= required

        root = g
        if fisher_diagonal is not None:
            squares = numbers.read(fisher_diagonal)
            root = jax.tree.map(lambda x: jnp.sqrt(jnp.maximum(x, 0)), squares)

        def add(old: jax.Array, new: jax.Array) -> jax.Array:
            total = jnp.hypot(old, new.astype(old.dtype))
            total = jnp.minimum(total, jnp.finfo(old.dtype).max)
            return jnp.where(counting, total, old)

        nu = jax.tree.map(add, state.nu, root)
        new_threshold = lambda old: largest.threshold(nu, density).astype(old.dtype)
        threshold = when(complete & counting, new_threshold, state.threshold)

        def keep(x: jax.Array, n: jax.Array) -> jax.Array:
            kept = (n >= threshold.astype(n.dtype)) & (n > 0) & ~counting
            return jnp.where(kept, x, 0)

        u = jax.tree.map(keep, g, nu)
        return numbers.like(u, updates), FisherState(step, nu, threshold)

    return transform(init, update)
