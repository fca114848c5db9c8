"""muP for mixtures of experts."""

from gradkit._core import check, transfer
from gradkit._core.scaling import Optimizer
from gradkit._core.types import Transform
from gradkit._core.width import Parametrization


def transfer_by_expert_mup(
    parametrization: Parametrization, optimizer: str | Optimizer = "adam"
) -> Transform:
    r"""Multiply each update so that experts and their router learn as much at any width.

    Every expert is a hidden matrix of its own, and the router an output matrix, whose number of
    experts does not grow. With $i$ and $o$ the growth of inputs and outputs,

    $$\text{expert:} \; u / i \; (\text{Adam}), \; u \cdot o / i \; (\text{SGD}); \qquad
      \text{router:} \; u \; (\text{Adam}), \; u \cdot i \; (\text{SGD})$$

    Args:
        parametrization: from `infer_parametrization`, with roles `expert` and
            `router`: an axis that numbers experts is no input and no output.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Malasnicki and others, "mu-Parametrization for Mixture of Experts",
        arXiv:2508.09752.
    Departure: the router takes the output's rule as `transfer_by_mup` has it, a multiplier
        and no smaller rate; the paper's own table could not be compared.
    Limits: as `transfer_by_mup`. The model divides what the router is given by `i`. The
        number of experts, and of those chosen, stay what they were.

    >>> shapes = {"shape": (4, 8, 8), "base": (4, 2, 2), "stacks": (0,)}
    >>> up = gk.Parameter(role="expert", inputs=(1,), outputs=(2,), **shapes)
    >>> tx = gk.transfer_by_expert_mup(gk.Parametrization({"up": up}))
    >>> print(tx.update({"up": jnp.ones((4, 8, 8))}, tx.init({}))[0]["up"][0, 0, 0])
    0.25
    """
    method = "transfer_by_expert_mup"
    roles = {p.role for p in parametrization.values()}
    check.holds(
        method,
        bool(roles & {"expert", "router"}),
        "parametrization must have experts or a router",
        sorted(roles),
        "Name their roles when you infer it, or use transfer_by_mup.",
    )
    return transfer.by_rule(method, parametrization, "mup", optimizer)
