"""ASGO: gradients over the root of the covariance of their small side."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import batch, check, roots, tree
from gradkit._core.types import (
    Extra,
    Params,
    Scalar,
    Transform,
    Updates,
    transform,
)


class OneSidedShampooState(NamedTuple):
    """What is remembered of every leaf and of its small side."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # average gradient, like the parameters
    grams: tuple[jax.Array, ...]  # averages of g g^T, [*batch, small, small]
    roots: tuple[jax.Array, ...]  # their inverse roots, when these were last taken


def precondition_by_one_sided_shampoo(
    b1: Scalar = 0.9,
    decay: Scalar = 0.99,
    damping: Scalar = 1e-6,
    every: int = 10,
    batch_axes: batch.Axes = (),
) -> Transform:
    r"""Divide each average gradient by the root of the covariance of its small side.

    $$m_t = b_1 m_{t-1} + (1 - b_1) g_t, \qquad
      L_t = \mathrm{decay} \, L_{t-1} + (1 - \mathrm{decay}) \, g_t g_t^T$$
    $$u_t = (L + \mathrm{damping} \, \bar\lambda I)^{-1/2} \; \frac{m_t}{1 - b_1^t}$$

    for a $g$ with no more rows than columns; a tall one is turned on its side before, and back
    after. $L = L_t / (1 - \mathrm{decay}^t)$ is that of the last $t$ for which `every` divides
    $t - 1$, or the first not zero; $\bar\lambda$ is the mean of its eigenvalues.

    Args:
        b1: decay of the average gradient.
        decay: decay of the average covariance.
        damping: added to the eigenvalues, as a share of their mean.
        every: updates between two times that roots are taken.
        batch_axes: axes that number matrices, such as `(0,)` for scanned layers. Of the
            others the last is the columns, and the rest are the rows.

    State: `4*size + 8*min(rows, cols)**2` bytes a leaf, `4` once.
    Flops: at most `4*size*min(rows, cols) + 3*min(rows, cols)**3 + 20*size
        + 20*min(rows, cols)**2 + 60` a leaf, beside the eigendecompositions.
    Paper: An and others, "ASGO: Adaptive Structured Gradient Optimization",
        arXiv:2503.20762, Algorithm 2, its practical one with averages; also as one-sided
        Shampoo in Xie and others, arXiv:2503.10537.
    Departure: `damping` is under the root and relative to the mean eigenvalue, where the paper
        adds a number to the root; the average gradient is debiased, and so is the covariance.
    Limits: an update that takes roots costs an eigendecomposition a matrix. The first roots
        are of one gradient. Explicitly sharded leaves are gathered first.

    >>> tx, g = gk.precondition_by_one_sided_shampoo(damping=0.0), jnp.array([[3.0, 4.0]])
    >>> u, _ = tx.update(g, tx.init(g))  # one gradient: its orthogonal factor
    >>> print(u.round(3))
    [[0.6 0.8]]
    """
    name = "precondition_by_one_sided_shampoo"
    check.fraction(name, b1=b1, decay=decay)
    check.nonnegative(name, damping=damping)
    check.positive(name, every=every)

    def init(params: Params) -> OneSidedShampooState:
        check.matrix(name, params, batch_axes)

        def square(p: jax.Array) -> jax.Array:
            lengths, *sides = batch.shape(p, batch_axes)
            return jnp.zeros((*lengths, min(sides), min(sides)), tree.wide_dtype(p))

        leaves = jax.tree.leaves(params)
        grams, first = (tuple(map(square, leaves)) for _ in range(2))
        step = jnp.zeros([], jnp.int32)
        return OneSidedShampooState(step, tree.zeros(params), grams, first)

    def update(
        updates: Updates,
        state: OneSidedShampooState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, OneSidedShampooState]:
        del params, extra
        g = roots.read(updates)
        step = tree.increment(state.count)
        mu = tree.average(b1, state.mu, g)
        gs = [batch.wide(x, batch_axes) for x in jax.tree.leaves(g)]
        grams = tree.average(decay, state.grams, tuple(map(roots.gram, gs)))

        def take() -> tuple[jax.Array, ...]:
            root = functools.partial(roots.inverse_root, power=0.5, damping=damping)
            return roots.each(root, tree.debias(grams, decay, step))

        due = state.count % every == 0
        taken = roots.renewed(due, take, state.roots, grams)
        leaves, structure = jax.tree.flatten(tree.debias(mu, b1, step))
        u = structure.unflatten(
            batch.unwide(root @ batch.wide(m, batch_axes), m, batch_axes)
            for root, m in zip(taken, leaves)
        )
        return tree.like(u, updates), OneSidedShampooState(step, mu, grams, taken)

    return transform(init, update)
