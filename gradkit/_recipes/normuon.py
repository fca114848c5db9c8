"""NorMuon, as in its authors' code, and Adam for everything else."""

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
from gradkit._transform.adaptive.neuron_norm import scale_by_neuron_norm
from gradkit._transform.momentum.nesterov import average_by_nesterov
from gradkit._transform.normalize.polar import normalize_by_polar


@factory
def normuon(
    learning_rate: Rate = 0.02,
    *,
    momentum: Hyper = 0.95,
    eps: Hyper = 1e-7,
    consistent_rms: Hyper | None = None,
    neuron_decay: Hyper = 0.95,
    neuron_eps: Hyper = 1e-10,
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
    """Muon with each neuron's update divided by its RMS over time.

    hidden matrices: `average_by_nesterov` -> `normalize_by_polar` -> `scale_by_neuron_norm` ->
    step and decay; all others: `scale_by_adam` -> step and decay, at `adam_lr_ratio` times the rate

    Args:
        eps: added to the Frobenius norm of a matrix's momentum as an EMA, in units of the gradient.
        neuron_decay: decay of the EMA of the mean square of a neuron's direction.
        neuron_eps: added to the root of that EMA, in units of the scaled polar factor.
        learning_rate, momentum, adam_lr_ratio, b1, b2, adam_eps, consistent_rms, coefficients,
            weight_decay, mask, hidden, batch_axes, model: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `4*size + 4*cols if ndim > 1 else 8*size` bytes a leaf, `20` once.
    Flops: at most `30*size*min(rows, cols) + 96*size` a leaf, with five steps.
    Paper: Li, Liu, Liang, Chen and Zhao, "NorMuon: Making Muon more efficient and scalable",
        arXiv:2510.05491, Algorithm 1.
    Departure: as in the authors' code, the momentum is Nesterov's, and the polar factor's norm
        and scale are kept; the paper sets an RMS of 0.2, as `consistent_rms=0.2` does
        approximately. Neurons of a convolution are its output channels (`scale_by_neuron_norm`).
        The momentum is a sum, as in `muon`.
    Limits: not for fine-tuning what Adam trained, nor for small batches; see `normalize_by_polar`.
    """
    check.interval("normuon", "[0, 1)", momentum=momentum, neuron_decay=neuron_decay)
    check.nonnegative(
        "normuon",
        eps=eps,
        adam_lr_ratio=adam_lr_ratio,
        neuron_eps=neuron_eps,
        adam_eps=adam_eps,
    )
    slow = rate.product(learning_rate, adam_lr_ratio)
    matrices = chain(
        average_by_nesterov(momentum),
        normalize_by_polar(
            eps / (1 - momentum),
            consistent_rms=consistent_rms,
            batch_axes=batch_axes,
            coefficients=coefficients,
        ),
        scale_by_neuron_norm(neuron_decay, eps=neuron_eps, batch_axes=batch_axes),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
    vectors = chain(
        scale_by_adam(b1, b2=b2, eps=adam_eps),
        step_by_learning_rate(slow),
        decay_by_weight(rate.lr_scaled_decay(slow, weight_decay), mask=mask),
    )
    return split("normuon", hidden, batch_axes, matrices, vectors)
