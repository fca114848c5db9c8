"""ASGO: gradients divided by the root of the covariance of their small side."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, paths, tree
from gradkit._core.factory import factory
from gradkit._core.matrix import kronecker, layout
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class OneSidedShampooState(NamedTuple):
    """State of `precondition_by_one_sided_shampoo`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # EMA of the gradient, like the parameters
    grams: kronecker.Sides  # EMAs of g g^T, of the small side alone
    roots: kronecker.Sides  # their inverse roots, as last computed


@factory
def precondition_by_one_sided_shampoo(
    b1: Hyper = 0.9,
    *,
    decay: Hyper = 0.99,
    damping: Hyper = 1e-6,
    every: int = 10,
    max_size: int = 8192,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Multiply the EMA of each gradient by the inverse root of its small side's covariance.

    $$m_t = b_1 m_{t-1} + (1 - b_1) g_t, \qquad
      L_t = \mathrm{decay} \, L_{t-1} + (1 - \mathrm{decay}) \, g_t g_t^T$$
    $$u_t = (L + \mathrm{damping} \, \bar\lambda I)^{-1/2} \; \frac{m_t}{1 - b_1^t}$$

    for a $g$ with no more rows than columns; a tall one is transposed before, and back after.
    $L = L_t / (1 - \mathrm{decay}^t)$ is that of the last $t$ for which `every` divides $t - 1$,
    at 1, 2, 4, 8 ... up to `every`, or at the first nonzero gradient; $\bar\lambda$ is the mean
    of its eigenvalues. Singular values of $u_t$ are limited to the most that a root of this $t$
    could give, $\sqrt{\sum_s v_s^2 / w_s}$ with the weights of gradient $s$ in $m_t$ and $L_t$. By
    default this grows from 1 to 2.3.

    Args:
        b1: decay of the EMA of the gradient.
        decay: decay of the EMA of the covariance.
        damping: added to the eigenvalues, as a fraction of their mean.
        every: updates between two renewals of the roots, after those at 1, 2, 4, 8 ...
        max_size: a matrix whose small side is longer is left as it is.
        batch_axes: see the glossary.

    State: `4*size + 8*(min(rows, cols) <= max_size)*min(rows, cols)**2` bytes a leaf, `4` once.
    Flops: at most `6*size*min(rows, cols) + 5*min(rows, cols)**3 + 30*size
        + 30*min(rows, cols)**2 + 100` a leaf, `60` once, beside the eigendecompositions.
    Paper: An and others, "ASGO: Adaptive Structured Gradient Optimization",
        arXiv:2503.20762, Algorithm 2, its practical one with EMAs; also as one-sided
        Shampoo in Xie and others, arXiv:2503.10537.
    Departure: `damping` is under the root and relative to the mean eigenvalue; the paper adds a
        number to the root. The EMA of the gradient and the covariance are bias-corrected.
        Singular values are limited, since roots kept between renewals may enlarge new directions;
        with `every=1` the limit is never reached.
    Limits: an update that renews roots costs an eigendecomposition a matrix. When a gradient has
        a direction that is new to the kept roots, the limit shortens the whole update, until
        roots are renewed. Explicitly sharded leaves are gathered first.

    >>> tx, g = gk.precondition_by_one_sided_shampoo(damping=0.0), jnp.array([[3.0, 4.0]])
    >>> u, _ = tx.update(g, tx.init(g))  # one gradient: its orthogonal factor
    >>> print(u.round(3))
    [[0.6 0.8]]
    """
    name = "precondition_by_one_sided_shampoo"
    check.interval(name, "[0, 1)", b1=b1, decay=decay)
    check.nonnegative(name, damping=damping)
    check.positive(name, every=every, max_size=max_size)

    def init(params: Params) -> OneSidedShampooState:
        check.matrix(name, params, batch_axes)
        check.concrete(name, max_size=max_size)

        def if_small(tall: bool, p: jax.Array, square: Any) -> Any:
            return square if layout.is_tall(p, batch_axes) == tall else kronecker.NONE

        def small() -> kronecker.Sides:
            rows, cols = kronecker.zeros(params, max_size, batch_axes)
            ps = paths.unboxed(params)
            rows = jax.tree.map(functools.partial(if_small, False), ps, rows)
            cols = jax.tree.map(functools.partial(if_small, True), ps, cols)
            return kronecker.Sides(rows, cols)

        step = jnp.zeros([], jnp.int32)
        return OneSidedShampooState(step, tree.zeros(params), small(), small())

    def update(
        updates: Updates,
        state: OneSidedShampooState,
        params: Params = None,
        **extra: Extra,
    ) -> tuple[Updates, OneSidedShampooState]:
        del params, extra
        g = numbers.read_square_summable(updates)
        step = numbers.increment(state.count)
        mu = tree.ema(b1, state.mu, g)
        grams = kronecker.ema_of_grams(decay, state.grams, g, batch_axes)

        def take() -> kronecker.Sides:
            covariances = tree.bias_corrected(grams, decay, step)
            return kronecker.inverse_roots(covariances, 0.5, 0.0, damping)

        due = kronecker.roots_due(state.count, every)
        roots = kronecker.renew_roots(due, take, state.roots, state.grams, grams)
        limit = kronecker.limit_of_ema(b1, decay, step, tree.zero_per_leaf(g).dtype)
        m = tree.bias_corrected(mu, b1, step)
        limits = kronecker.limits_of_product(limit, m, grams, 0.5, damping)
        u = kronecker.multiply_limited(roots.rows, m, roots.cols, limits, batch_axes)
        return numbers.like(u, updates), OneSidedShampooState(step, mu, grams, roots)

    return transform(init, update)
