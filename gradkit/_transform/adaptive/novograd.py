"""NovoGrad: momentum of gradients that are normalized leaf by leaf."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, rate, tree
from gradkit._core.factory import factory
from gradkit._core.mask import Mask, decayed
from gradkit._core.norms import of_leaves
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, transform


class NovoGradState(NamedTuple):
    """State of `scale_by_novograd`."""

    count: jax.Array  # updates so far, int32 []
    mu: Updates  # decayed sum of normalized gradients, like the parameters
    root: (
        jax.Array
    )  # sqrt(v): RMS over time of the gradient norm of every leaf, [leaves]


@factory
def scale_by_novograd(
    b1: Hyper = 0.95,
    *,
    b2: Hyper = 0.98,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    r"""Divide each leaf's gradient by the RMS over time of its norm, then apply momentum.

    $$v_1 = \lVert g_1 \rVert^2, \qquad
      v_t = b_2 v_{t-1} + (1 - b_2) \lVert g_t \rVert^2$$
    $$m_t = b_1 m_{t-1} + \frac{g_t}{\sqrt{v_t} + \epsilon}
      + \mathrm{weight\_decay} \, p_{t-1}, \qquad u_t = m_t$$

    Args:
        b1: decay of the sum of normalized gradients.
        b2: decay of the EMA of the squared norm.
        eps: added to the root, in units of the gradient's norm.
        weight_decay: fraction of each parameter that is added to its normalized gradient.
        mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `4*size + 4` bytes a leaf, `4` once.
    Flops: at most `20*size + 64` a leaf.
    Paper: Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments for
        Training of Deep Networks", arXiv:1905.11286, Algorithm 1.
    Departure: each leaf is a layer, as in published implementations: a kernel and its bias are
        two. The state keeps the root of `v`, since `v` could overflow or underflow. `v` starts
        with the first nonzero gradient of a leaf.
    Limits: the direction of a steady gradient grows to a norm of `1 / (1 - b1)`. Weight decay
        passes through the momentum, so it is not decoupled.

    >>> tx, p = gk.scale_by_novograd(), jnp.zeros(2)  # the first direction has norm one
    >>> u, _ = tx.update(jnp.array([3e25, -4e25]), tx.init(p), p)
    >>> print(u.round(3))
    [ 0.6 -0.8]
    """
    check.interval("scale_by_novograd", "[0, 1)", b1=b1, b2=b2)
    check.nonnegative("scale_by_novograd", eps=eps, weight_decay=weight_decay)

    def init(params: Params) -> NovoGradState:
        count = jnp.zeros([], jnp.int32)
        return NovoGradState(count, tree.zeros(params), tree.zero_per_leaf(params))

    def update(
        updates: Updates, state: NovoGradState, params: Params = None, **extra: Extra
    ) -> tuple[Updates, NovoGradState]:
        del extra
        g = numbers.read(updates)
        count = numbers.increment(state.count)
        norms = of_leaves(updates).astype(state.root.dtype)
        norms = jnp.minimum(norms, jnp.finfo(norms.dtype).max)
        root = tree.ema_rms(b2, state.root, norms)
        root = jnp.where(state.root == 0, norms, root)
        term = tree.scale_each(tree.ratio(1, root + eps), g)

        if not rate.is_zero(weight_decay):
            check.given("scale_by_novograd", params)
            decaying = decayed("scale_by_novograd", mask, params)
            add = lambda u, p: u + weight_decay * p.astype(u.dtype)
            term = jax.tree.map(add, term, decaying)

        def accumulate(m: jax.Array, u: jax.Array) -> jax.Array:
            return (b1 * m + u.astype(m.dtype)).astype(m.dtype)

        mu = jax.tree.map(accumulate, state.mu, term)
        return numbers.like(mu, updates), NovoGradState(count, mu, root)

    return transform(init, update)
