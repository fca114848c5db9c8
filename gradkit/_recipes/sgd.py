"""Stochastic gradient descent with Polyak's momentum."""

from gradkit._core import check, rate
from gradkit._core.chain import chain
from gradkit._core.factory import factory
from gradkit._core.mask import Mask
from gradkit._core.types import Hyper, Rate, Transform
from gradkit._step.decay.weight import decay_by_weight
from gradkit._step.size.learning_rate import step_by_learning_rate
from gradkit._transform.momentum.heavy_ball import average_by_heavy_ball
from gradkit._transform.momentum.nesterov import average_by_nesterov


@factory
def sgd(
    learning_rate: Rate = 1e-2,
    *,
    momentum: Hyper = 0.0,
    nesterov: bool = False,
    weight_decay: Hyper = 0.0,
    mask: Mask = None,
) -> Transform:
    """Stochastic gradient descent with momentum, heavy-ball or Nesterov's, and decoupled weight decay.

    `average_by_heavy_ball` or `average_by_nesterov` -> `step_by_learning_rate` -> `decay_by_weight`

    Args:
        nesterov: whether the momentum is Nesterov's, of `average_by_nesterov`.
        learning_rate, momentum, weight_decay, mask: see the glossary.

    Needs: params, unless `weight_decay` is 0.
    State: `4*size` bytes a leaf, `8` once.
    Flops: at most `16*size` a leaf.
    Paper: Polyak, "Some methods of speeding up the convergence of iteration methods",
        doi:10.1016/0041-5553(64)90137-5, the heavy ball; `average_by_nesterov` names the paper of
        the other.
    Departure: the learning rate multiplies the sum, as in torch and optax. Weight decay is
        decoupled; torch's enters the momentum: `optax.add_decayed_weights` before this.
    Limits: keeps its sum at momentum 0 too; `step_by_learning_rate` alone keeps nothing.
    """
    check.interval("sgd", "[0, 1)", momentum=momentum)
    average = average_by_nesterov if nesterov else average_by_heavy_ball
    return chain(
        average(momentum),
        step_by_learning_rate(learning_rate),
        decay_by_weight(rate.lr_scaled_decay(learning_rate, weight_decay), mask=mask),
    )
