"""Clip the norm of every tensor by itself."""

from gradkit._core import check, numbers, report, tree
from gradkit._core.factory import factory
from gradkit._core.norms import clip_factor, of_leaves
from gradkit._core.types import Extra, Hyper, Params, Transform, Updates, stateless


@factory
def clip_by_component_norm(max_norm: Hyper = 1.0) -> Transform:
    r"""Shrink the gradient of each leaf to a norm of at most `max_norm`.

    $$u_i = g_i \cdot \min(1, \mathrm{max\_norm} / \lVert g_i \rVert)$$

    Args:
        max_norm: the largest Euclidean norm that passes, in units of the gradient, the same
            for every leaf.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `14*size + 20` a leaf.
    Paper: Yang and Ma, "Improving Stability of Fine-Tuning Pretrained Language Models via
        Component-Wise Gradient Norm Clipping", arXiv:2210.10325.
    Departure: a component is a leaf, as in the authors' code, which also adds 1e-6 to the norm.
        The paper tunes `max_norm` from 0.01 to 5 and names no default.
    Limits: turns the gradient as a whole towards the leaves that are not clipped.

    >>> tx = gk.clip_by_component_norm(1.0)  # no leaf pays for another
    >>> g = {"a": jnp.array([3e9, 4e9]), "b": jnp.array([0.5])}
    >>> print(jnp.concatenate([*tx.update(g, tx.init(g))[0].values()]).round(3))
    [0.6 0.8 0.5]
    """
    check.nonnegative("clip_by_component_norm", max_norm=max_norm)

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del params, extra
        g = numbers.read(updates)
        norms = of_leaves(updates)
        factors = clip_factor(norms, max_norm)
        report.clipping("clip_by_component_norm", factors)
        return numbers.like(tree.scale_each(factors, g), updates)

    return stateless(update)
