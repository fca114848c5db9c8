"""NovoGrad, as in its authors' code."""

from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.adaptive.novograd import scale_by_novograd


@factory
def novograd(
    learning_rate: Rate = 1e-2,
    *,
    b1: Hyper = 0.95,
    b2: Hyper = 0.98,
    eps: Hyper = 1e-8,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """Momentum of gradients divided by layer-wise second moments, weight decay included.

    `scale_by_novograd` -> `step_by_learning_rate`

    Args:
        b1: decay of the sum of normalized gradients.
        b2: decay of the EMA of the squared norm of a leaf.
        eps: added to the root of that EMA, in units of the gradient's norm.
        weight_decay: fraction of each parameter that is added to its normalized gradient.
        learning_rate, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `4*size + 4` bytes a leaf, `8` once.
    Flops: at most `24*size + 64` a leaf.
    Paper: Ginsburg et al., "Stochastic Gradient Methods with Layer-wise Adaptive Moments for
        Training of Deep Networks", arXiv:1905.11286, Algorithm 1.
    Departure: each leaf is a layer, as in published implementations: a kernel and its bias are
        two.
    Limits: a steady direction grows by `1 / (1 - b1)`; lower the learning rate by it.
    """
    return chain(
        scale_by_novograd(b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask),
        step_by_learning_rate(learning_rate),
    )
