"""Learning rates per layer for four parametrizations and any alignment of updates with data."""

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

    $$u \cdot \frac{M}{G^q S^s}, \qquad M = n^a i^{-\mathrm{alignment}}, \qquad
      G = n^{-a} o^{-r}, \qquad S = n^{-b}$$

    $i$ and $o$ are the growth of fan-in and fan-out, target over base. $n$ is the growth of the
    width: `o` for input weights, else `i`. The model uses a weight as $n^{-a} w$, and its entries
    are drawn with standard deviation proportional to $n^{-b}$: $a$ and $b$ are in the table. $M$
    is how far an entry should move, $G$ the size of its gradient, $S$ its initial size, and $r$
    is $a + b$ of the output matrix. SGD: $q = 1$, $s = 0$. Adam: $q = s = 0$. Adafactor, whose
    step is relative to the parameter: $q = 0$, $s = 1$.

    | $a$, $b$ | input | hidden | output |
    |---|---|---|---|
    | standard | 0, 0 | 0, 1/2 | 0, 1/2 |
    | ntk | 0, 0 | 1/2, 0 | 1/2, 0 |
    | mup | -1/2, 1/2 | 0, 1/2 | 1/2, 1/2 |
    | mean_field | 0, 0 | 1/2, 0 | 1, 0 |

    Args:
        parametrization: from `infer_parametrization`.
        table: the row above that the model follows, which fixes $a$ and $b$.
        optimizer: what made the direction: a name of `gradkit.OPTIMIZERS`, or an
            `Optimizer`.
        alignment: 1 where updates add up with one sign (full), 1/2 with random ones (none).

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Everett and others, "Scaling Exponents Across Parameterizations and Optimizers",
        arXiv:2407.05872, Table 1.
    Departure: biases and gains, which are not in the paper, count as inputs with $a = b = 0$.
    Limits: place it after `step_by_learning_rate`, so that no schedule undoes it. The model
        multiplies by $n^{-a}$. Adam's `eps` should be proportional to $G$, which is the `eps` of
        `gradkit.multipliers`; or use `scale_by_adam_atan2`, which has none.

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
