"""Muon for hidden matrices, Adam for everything else."""

from gradkit._core import check, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.matrix import layout, newton_schulz
from gradkit._core.routing.hidden import Hidden, split
from gradkit._core.types import Hyper, Model, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.adam import scale_by_adam
from gradkit._transform.momentum.nesterov import average_by_nesterov
from gradkit._transform.normalize.polar import normalize_by_polar


@factory
def muon(
    learning_rate: Rate = 0.02,
    *,
    momentum: Hyper = 0.95,
    eps: Hyper = 1e-7,
    consistent_rms: Hyper | None = None,
    adam_lr_ratio: Hyper = 0.015,
    b1: Hyper = 0.9,
    b2: Hyper = 0.95,
    adam_eps: Hyper = 1e-10,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
    hidden: Hidden = None,
    batch_axes: layout.Axes = (),
    model: Model = None,
    coefficients: newton_schulz.Coefficients = newton_schulz.JORDAN,
) -> Transform:
    """Nesterov momentum orthogonalized by Newton-Schulz for hidden matrices, Adam for all else.

    hidden matrices: `average_by_nesterov` -> `normalize_by_polar` -> step and decay;
    all others: `scale_by_adam` -> step and decay, at `adam_lr_ratio` times the rate

    Args:
        learning_rate: see the glossary. For matrices, the spectral norm of an update that keeps or
            narrows the width; with `consistent_rms`, the rate of an AdamW whose updates are about as
            large.
        eps: added to the Frobenius norm of a matrix's momentum as an EMA, in units of the gradient.
        momentum, adam_lr_ratio, b1, b2, adam_eps, consistent_rms, coefficients, weight_decay, mask,
            hidden, batch_axes, model: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `4*size if ndim > 1 else 8*size` bytes a leaf, `20` once.
    Flops: at most `30*size*min(rows, cols) + 66*size` a leaf, with five steps.
    Paper: Jordan and others, "Muon: An optimizer for hidden layers in neural networks"; as
        steepest descent in Bernstein and Newhouse, arXiv:2409.20325; `consistent_rms` from
        Liu and others, "Muon is Scalable for LLM Training", arXiv:2502.16982, who set 0.2.
    Departure: steps are in at least float32, not bfloat16 (`normalize_by_polar`). The momentum is
        a sum, `1 / (1 - momentum)` times the EMA of Muon's own code; `eps` is multiplied alike.
    Limits: not for fine-tuning what Adam trained, nor for small batches; see
        `normalize_by_polar`. Matrices fused outside of attention, and layouts that differ from
        leaf to leaf, need `view_by_pattern`. With `consistent_rms` give `transfer_by_mup` and its
        kin `optimizer="projected"`, whose entries grow alike, and not `"muon"`.
    """
    check.interval("muon", "[0, 1)", momentum=momentum)
    check.nonnegative("muon", eps=eps, adam_lr_ratio=adam_lr_ratio, adam_eps=adam_eps)
    slow = rate.product(learning_rate, adam_lr_ratio)
    matrices = chain(
        average_by_nesterov(momentum),
        normalize_by_polar(
            eps / (1 - momentum),
            consistent_rms=consistent_rms,
            batch_axes=batch_axes,
            coefficients=coefficients,
        ),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
    vectors = chain(
        scale_by_adam(b1, b2=b2, eps=adam_eps),
        step_by_learning_rate(slow),
        decay_by_weight(rate.lr_scaled_decay(slow, weight_decay), mask=mask),
    )
    return split("muon", hidden, batch_axes, matrices, vectors)
