"""Learning rates per layer for any parametrization, and any alignment of weights and data."""

import functools

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.types import Hyper, Transform
from gradkit.parametrization import apply, rules
from gradkit.parametrization.parameter import Parametrization
from gradkit.parametrization.scaling import LAYOUTS, Optimizer


@factory
def transfer_by_alignment(
    parametrization: Parametrization,
    *,
    table: str = "standard",
    optimizer: str | Optimizer = "adam",
    alignment: Hyper = 1.0,
) -> Transform:
    r"""Multiply each update by the learning-rate factor of a parametrization and an alignment.

    With weights used as $n^{-a} w$ and drawn with entries of $n^{-b}$, $i$ and $o$ the growth
    of fan-in and fan-out, and $r = a + b$ of the output matrix:

    $$u \cdot \frac{M}{G^q S^s}, \qquad M = n^a i^{-\mathrm{alignment}}, \qquad
      G = n^{-a} o^{-r}, \qquad S = n^{-b}$$

    SGD: $q = 1$; Adam: $q = 0$; Adafactor: $q = 0$ and, as its step is relative, $s = 1$. The
    width $n$ is `o` for input weights, else `i`.

    | $a$, $b$ | input | hidden | output |
    |---|---|---|---|
    | standard | 0, 0 | 0, 1/2 | 0, 1/2 |
    | ntk | 0, 0 | 1/2, 0 | 1/2, 0 |
    | mup | -1/2, 1/2 | 0, 1/2 | 1/2, 1/2 |
    | mean_field | 0, 0 | 1/2, 0 | 1, 0 |

    Args:
        parametrization: from `infer_parametrization`.
        table: the row above that the model follows.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.
        alignment: 1 where updates add up with one sign (full), 1/2 with random ones (none).

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Everett and others, "Scaling Exponents Across Parameterizations and Optimizers",
        arXiv:2407.05872, Table 1.
    Departure: biases and gains, which the paper has none of, count as inputs with $a = b = 0$.
    Limits: as `transfer_by_mup`. Adam's `eps` should go with $G$, the `eps` of
        `gradkit.multipliers`, or be left out: `scale_by_adam_atan2`.

    >>> w, wide = {"w": jnp.ones((2, 2))}, {"w": jnp.ones((8, 8))}
    >>> grown = gk.infer_parametrization(base=w, target=wide)
    >>> tx = gk.transfer_by_alignment(grown, alignment=0.5)
    >>> print(tx.update(wide, tx.init(wide))[0]["w"][0, 0])
    0.5
    """
    method = "transfer_by_alignment"
    check.interval(method, "(0, 1]", alignment=alignment)
    layout = rules.chosen(method, "table", LAYOUTS, table)
    rule = functools.partial(rules.in_layout, layout, alignment=alignment)
    return apply.by_rule(method, parametrization, rule, optimizer)
