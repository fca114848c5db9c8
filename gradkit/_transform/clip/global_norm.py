"""Clip the norm of the whole gradient."""

import jax

from gradkit._core import check, norms, numbers, report, tree
from gradkit._core.factory import factory
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, stateless


@factory
def clip_by_global_norm(max_norm: Hyper = 1.0) -> Transform:
    r"""Shrink the gradient, as one vector, to at most `max_norm`, keeping its direction.

    $$u = g \cdot \min(1, \mathrm{max\_norm} / \lVert g \rVert)$$

    Args:
        max_norm: the largest Euclidean norm that passes, in units of the gradient.

    Needs: nothing; `global_norm`, where given and finite, stands for the norm of the
        gradient, so that groups under `optax.partition` can share one.
    State: `0` bytes a leaf, `0` once.
    Flops: at most `14*size + 20` a leaf.
    Paper: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural
        networks", arXiv:1211.5063, Algorithm 1.
    Departure: none.
    Limits: one large entry shrinks every leaf; a non-finite entry counts as zero.

    >>> tx = gk.clip_by_global_norm(1.0)  # also where squares would overflow
    >>> u, _ = tx.update(jnp.array([3e25, 4e25]), tx.init(jnp.zeros(2)))
    >>> print(u.round(3))
    [0.6 0.8]
    """
    check.nonnegative("clip_by_global_norm", max_norm=max_norm)

    def update(
        updates: Updates,
        params: Params = None,
        *,
        global_norm: jax.Array | None = None,
        **extra: Extra,
    ) -> Updates:
        del params, extra
        norm = norms.given_or(norms.of_tree(updates), global_norm)
        factor = norms.clip_factor(norm, max_norm)
        report.clipping("clip_by_global_norm", factor)
        shrink = lambda g: tree.scale(factor, numbers.without_nan(numbers.wide(g)))
        return numbers.like(tree.map_by_shape(shrink, updates), updates)

    return stateless(update)
