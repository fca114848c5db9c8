"""HSPG of Only Train Once: gradient descent that ends with groups at zero."""

from gradkit._apply.proximal.half_space import shrink_by_half_space
from gradkit._core import check, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.size.learning_rate import step_by_learning_rate


@factory
def hspg(
    learning_rate: Rate = 0.1,
    *,
    penalty: Hyper = 1e-3,
    eps: Hyper = 0.0,
    warmup: Hyper = 0,
    axes: tuple[int, ...] = (-1,),
) -> Transform:
    """Half-space stochastic projected gradient: descent that sets whole groups to zero.

    `step_by_learning_rate` -> `shrink_by_half_space`

    Args:
        penalty: factor on the sum of the norms of all groups, which is added to the loss.
        eps: the fraction of its length that a group must keep along itself, below 1; the higher, the
            more groups become zero.
        warmup: updates in which no group is set to zero or kept there.
        axes: those that count the groups; all others are inside a group. `(-1,)` are the
            units of a kernel `[..., in, out]`.
        learning_rate: see the glossary.

    Needs: params.
    State: `0` bytes a leaf, `8` once.
    Flops: at most `26*size` a leaf, `4` once.
    Paper: Chen and others, "Only Train Once: A One-Shot Neural Network Training And Pruning
        Framework", arXiv:2107.07467, Algorithm 2.
    Departure: groups are slices of one leaf (`shrink_by_half_space`). The momentum of the
        authors' code, and its cap on the fraction of groups that are zero, are left out.
    Limits: a group that is zero after warm-up stays so. Leaves of fewer than two axes are
        neither penalized nor set to zero.
    """
    check.nonnegative("hspg", penalty=penalty)
    shrinkage = rate.product(learning_rate, penalty)
    return chain(
        step_by_learning_rate(learning_rate),
        shrink_by_half_space(shrinkage, eps=eps, warmup=warmup, axes=axes),
    )
