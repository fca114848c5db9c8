"""Shampoo: gradients between inverse roots of their row and column covariances."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, tree
from gradkit._core.factory import factory
from gradkit._core.matrix import kronecker, layout
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class ShampooState(NamedTuple):
    """State of `precondition_by_shampoo`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # EMA of the gradient, like the parameters
    grams: kronecker.Sides  # EMAs of g g^T and of g^T g
    roots: kronecker.Sides  # their inverse roots, as last computed


@factory
def precondition_by_shampoo(
    b1: Hyper = 0.9,
    *,
    decay: Hyper = 0.99,
    rows_power: Hyper = 0.25,
    cols_power: Hyper = 0.25,
    damping: Hyper = 1e-6,
    every: int = 10,
    max_size: int = 8192,
    batch_axes: layout.Axes = (),
) -> Transform:
    r"""Multiply the EMA of each gradient by inverse roots of its covariances, from both sides.

    $$m_t = b_1 m_{t-1} + (1 - b_1) g_t$$
    $$L_t = \mathrm{decay} \, L_{t-1} + (1 - \mathrm{decay}) \, g_t g_t^T, \qquad
      R_t = \mathrm{decay} \, R_{t-1} + (1 - \mathrm{decay}) \, g_t^T g_t$$
    $$u_t = (L + \mathrm{damping} \, \bar\lambda_L I)^{-\mathrm{rows\_power}} \;
      \frac{m_t}{1 - b_1^t} \;
      (R + \mathrm{damping} \, \bar\lambda_R I)^{-\mathrm{cols\_power}}$$

    $L = L_t / (1 - \mathrm{decay}^t)$ and $R$ likewise are those of the last $t$ for which
    `every` divides $t - 1$, at 1, 2, 4, 8 ... up to `every`, or at the first nonzero gradient;
    $\bar\lambda$ is the mean of their eigenvalues. A covariance that is alone takes both powers.
    Singular values of $u_t$ are limited to the most that roots of this $t$ could give: for powers
    that add up to 1/2, $\sqrt{\sum_s v_s^2 / w_s}$, with the weights $v_s$ and $w_s$ of gradient
    $s$ in $m_t$ and $L_t$. By default this grows from 1 to 2.3.

    Args:
        b1: decay of the EMA of the gradient.
        decay: decay of the EMAs of the covariances.
        rows_power: exponent of the rows' covariance; with a kernel `[in, out]`, of the inputs'.
        cols_power: exponent of the columns' covariance.
        damping: added to the eigenvalues, as a fraction of their mean.
        every: updates between two renewals of the roots, after those at 1, 2, 4, 8 ...
        max_size: a longer side is left as it is, and so is a matrix of one row or column.
        batch_axes: see the glossary.

    State: `4*size + 8*((rows <= max_size)*rows**2 + (cols <= max_size)*cols**2
        if min(rows, cols) > 1 else 1)` bytes a leaf, `4` once.
    Flops: at most `4*size*(rows + cols) + 2*size*min(rows, cols) + 5*(rows**3 + cols**3)
        + 30*size + 30*(rows**2 + cols**2) + 100` a leaf, `60` once, beside the
        eigendecompositions.
    Paper: Gupta, Koren and Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization",
        arXiv:1802.09568, Algorithm 1; separate exponents and relative damping as in
        Ishikawa and Karakida, arXiv:2312.12226, on scaling with width.
    Departure: EMAs in place of sums, as in Anil and others, arXiv:2002.09018, so that steps do
        not shrink by themselves. A tensor is a matrix, not one side per axis. A covariance
        that is alone has the exponent 1/2, as in their code. Damping is relative to the mean
        eigenvalue, and eigenvalues under a rounding of the largest count as that rounding. There
        is no grafting. Instead singular values are limited, since roots kept between renewals may
        enlarge new directions: by the bound of Kingma and Ba, arXiv:1412.6980, section 2.1, made
        exact and extended to matrices (`every=1` never reaches it). The limit acts on the eighth
        root of the mean eighth power of the singular values, so that none of $n$ ends over
        $n^{1/8}$ times it.
    Limits: an update that renews roots costs an eigendecomposition a side. When a gradient has a
        direction that is new to the kept roots, the limit shortens the whole update, until roots
        are renewed. There is no limit where `decay <= b1**2`. Covariances of entries under about
        1e-19 underflow: such a leaf is left as it is. Explicitly sharded leaves are gathered
        first.

    >>> tx, g = gk.precondition_by_shampoo(damping=0.0), jnp.diag(jnp.array([1.0, 2.0, 4.0]))
    >>> u, _ = tx.update(g, tx.init(g))  # one gradient: its orthogonal factor
    >>> bool(jnp.allclose(u, jnp.eye(3), atol=1e-5))
    True
    """
    name = "precondition_by_shampoo"
    check.interval(name, "[0, 1)", b1=b1, decay=decay)
    check.nonnegative(
        name, rows_power=rows_power, cols_power=cols_power, damping=damping
    )
    check.positive(name, every=every, max_size=max_size)

    def init(params: Params) -> ShampooState:
        check.matrix(name, params, batch_axes)
        check.concrete(name, max_size=max_size)
        grams, first = (kronecker.zeros(params, max_size, batch_axes) for _ in range(2))
        return ShampooState(jnp.zeros([], jnp.int32), tree.zeros(params), grams, first)

    def update(
        updates: Updates, state: ShampooState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, ShampooState]:
        del params, extra
        g = numbers.read_square_summable(updates)
        step = numbers.increment(state.count)
        mu = tree.ema(b1, state.mu, g)
        grams = kronecker.ema_of_grams(decay, state.grams, g, batch_axes)
        covariances = lambda: tree.bias_corrected(grams, decay, step)

        def take() -> kronecker.Sides:
            return kronecker.inverse_roots(
                covariances(), rows_power, cols_power, damping
            )

        due = kronecker.roots_due(state.count, every)
        roots = kronecker.renew_roots(due, take, state.roots, state.grams, grams)
        power = rows_power + cols_power
        limit = kronecker.limit_of_ema(b1, decay, step, tree.zero_per_leaf(g).dtype)
        m = tree.bias_corrected(mu, b1, step)
        limits = kronecker.limits_of_product(limit, m, covariances(), power, damping)
        u = kronecker.multiply_limited(roots.rows, m, roots.cols, limits, batch_axes)
        return numbers.like(u, updates), ShampooState(step, mu, grams, roots)

    return transform(init, update)
