"""Dion for hidden matrices, Adam for everything else."""

from gradkit._core import check, random, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.matrix import layout
from gradkit._core.routing.hidden import Hidden, split
from gradkit._core.types import Hyper, Model, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.subspace.dion import project_by_dion


@factory
def dion(
    learning_rate: Rate = 0.01,
    *,
    rank: int = 768,
    momentum: Hyper = 0.95,
    eps: Hyper = 1e-8,
    consistent_rms: Hyper | None = None,
    adam_ratio: Hyper = 1.0,
    b1: Hyper = 0.9,
    b2: Hyper = 0.95,
    adam_eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.01,
    mask: Mask = None,
    key: random.Key = 0,
    hidden: Hidden = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
) -> Transform:
    """Orthonormal updates of low rank, for matrices between hidden layers.

    hidden matrices: `project_by_dion` -> step and decay;
    all others: `scale_by_adam` -> step and decay, at `adam_ratio` times the rate

    Args:
        learning_rate: a number or a schedule; moves both parts. For matrices, the root mean
            square of what an update adds to an output, for inputs of 1.
        rank: directions of one update, at most the shorter side of a matrix.
        momentum: what the momentum keeps of the part that is used.
        eps: added to the norms of right factors, in units of the gradient.
        consistent_rms: where given, such as 0.2, the root mean square of updates of every shape and
            rank is about this times the rate, as AdamW's is, in place of the scale by shape.
        adam_ratio: Adam's learning rate, as a share of the matrices'.
        b1: decay of Adam's average gradient.
        b2: decay of Adam's average squared gradient.
        adam_eps: added to the root of Adam's average square, in units of the gradient.
        weight_decay: times a parameter's own rate, the share of it lost in one update.
        mask: which parameters decay: a tree of bools like them, or what makes one of them; `None`
            for all.
        key: a seed or a key for the first directions.
        hidden: which leaves are hidden matrices: a regular expression for their paths, a
            predicate of path and leaf, or a dict of paths and bools, which leaves all other
            paths to the default: names and shapes decide. `gradkit.routes` shows how.
        batch_axes: axes that number matrices in every hidden leaf, such as `(0,)` for
            scanned layers.
        model: what `gradkit.read_model` read: it says in place of `hidden` and `batch_axes` which
            leaves are hidden matrices, and which matrices they hold.

    Needs: params, unless `weight_decay` is 0.
    State: `4*size + 4*rows*min(rank, rows, cols) if ndim > 1 else 8*size` bytes a leaf,
        `20` once.
    Flops: at most `9*size*min(rank, rows, cols) + 64*size` a leaf, and a QR decomposition.
    Paper: Ahn, Xu, Abreu, Fan, Magakyan, Sharma, Zhan and Langford, "Dion: Distributed
        Orthonormalized Updates", arXiv:2504.05295, Algorithm 1.
    Departure: those of `project_by_dion`; the paper scales the rates of embeddings, readouts
        and vectors each by their own shape: route them yourself to do so.
    Limits: names decide what is hidden, and linen's last `Dense_i` is named as any other: look
        at `gradkit.routes`, or set `hidden`. Updates of matrices cannot be differentiated.
    """
    check.fraction("dion", momentum=momentum)
    check.nonnegative("dion", adam_ratio=adam_ratio, adam_eps=adam_eps)
    slow = rate.product(learning_rate, adam_ratio)
    matrices = chain(
        project_by_dion(
            rank,
            decay=momentum,
            eps=eps,
            consistent_rms=consistent_rms,
            key=key,
            batch_axes=batch_axes,
        ),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.coupled_decay(learning_rate, weight_decay), mask=mask),
    )
    vectors = chain(
        scale_by_adam(b1, b2=b2, eps=adam_eps),
        step_by_learning_rate(slow),
        decay_by_weight(rate.coupled_decay(slow, weight_decay), mask=mask),
    )
    return split("dion", hidden, batch_axes, matrices, vectors)
