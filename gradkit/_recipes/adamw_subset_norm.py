"""AdamSN with decoupled weight decay."""

from gradkit._core import check, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.subset_norm import scale_by_subset_norm
from gradkit._transform.momentum.heavy_ball import average_by_heavy_ball


@factory
def adamw_subset_norm(
    learning_rate: Rate = 1e-3,
    *,
    b1: Hyper = 0.9,
    b2: Hyper = 0.999,
    eps: Rate = 1e-6,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """AdamW with one second moment for each subset of about `sqrt(size)` entries of a leaf.

    `scale_by_subset_norm(average_by_heavy_ball)` -> `step_by_learning_rate` -> `decay_by_weight`

    The learning rate makes the sum of gradients an EMA, bias-corrected as Adam's.

    Args:
        learning_rate: see the glossary. An entry moves by up to about the root of its subset's size
            less than in AdamW.
        b2: decay of the EMA of the squared norm of a subset.
        eps: added to the root of that EMA, in units of the gradient; the authors' code has the
            schedule `1e-6 / sqrt(1 - b2^t)`.
        b1, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `4*size + 4*size / max(k for k in range(1, size + 1) if size % k == 0 and
        k*k <= size)` bytes a leaf, `12` once.
    Flops: at most `28*size + 64` a leaf.
    Paper: Nguyen and Nguyen, "Efficient Adaptive Optimization via Subset-Norm and
        Subspace-Momentum: Fast, Memory-Reduced Training with Convergence Guarantees",
        arXiv:2411.07120, AdamSN.
    Departure: the authors' code adds `eps` before bias correction, and decays the parameters
        after the step; here they decay as they were before it. With
        `s = learning_rate * weight_decay`, `learning_rate * (1 - s)` and `weight_decay / (1 - s)`
        give its numbers.
    Limits: sharded leaves are gathered.
    """
    check.nonnegative("adamw_subset_norm", learning_rate=learning_rate)
    check.interval("adamw_subset_norm", "[0, 1)", b1=b1)
    of_sums = rate.product(
        rate.product(learning_rate, 1 - b1), rate.bias_correction(b1)
    )
    return chain(
        scale_by_subset_norm(average_by_heavy_ball(b1), b2=b2, eps=eps),
        step_by_learning_rate(of_sums),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
