"""muP: the learning rate tuned on a narrow model, right for a wide one."""

from typing import Any

import jax

from gradkit._core import check, tree
from gradkit._core.types import Extra, Params, Transform, Updates, stateless
from gradkit._core.width import Growth, Parametrization


def transfer_by_mup(parametrization: Parametrization, degree: float = 0.0) -> Transform:
    r"""Multiply each update so that features move as much at any width.

    A parameter's entries should move by $M$ times what they moved at the base width, and its
    gradient entries are $G$ times what they were. With $i$ and $o$ the growth of its inputs
    and outputs, an update of degree $q$ in the gradient ($q = 1$: SGD, $q = 0$: Adam) takes

    $$u \cdot M / G^q, \qquad M = \begin{cases} 1 / i & \text{hidden} \\ 1 & \text{else}
      \end{cases}, \qquad G = \begin{cases} 1 / i & \text{output} \\ 1 / o & \text{else}
      \end{cases}$$

    Args:
        parametrization: from `infer_parametrization(base, target)`.
        degree: 0 where scaling the gradient leaves the direction as it is (Adam, sign
            methods), 1 where the direction scales with it (SGD, momentum).

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Yang and Hu, "Feature Learning in Infinite-Width Neural Networks", arXiv:2011.14522;
        as multipliers, Yang et al., "Tensor Programs V", arXiv:2203.03466, Table 8.
    Departure: none; the initial weights and the `1 / i` in front of the output layer are the
        model's to set.
    Limits: stands after `step_by_learning_rate`, so that no schedule undoes it. Tied
        embeddings, attention scores and weight decay are not its business.

    >>> wide = gk.infer_parametrization({"w": jnp.ones((2, 2))}, {"w": jnp.ones((8, 8))})
    >>> tx = gk.transfer_by_mup(wide)  # Adam-like: a hidden matrix steps a quarter as far
    >>> print(tx.update({"w": jnp.ones((8, 8))}, tx.init({}))[0]["w"][0, 0])
    0.25
    """
    check.nonnegative("transfer_by_mup", degree=degree)

    def update(updates: Updates, params: Params = None, **extra: Extra) -> Updates:
        del params, extra

        def leaf(path: str, u: jax.Array) -> Any:
            if path not in parametrization:
                raise ValueError(
                    f"gradkit.transfer_by_mup: leaf {path} must be in the parametrization, "
                    f"got {sorted(parametrization)}. Infer it from this model's parameters."
                )
            return multiplier(parametrization[path], degree) * u

        return tree.like(tree.map_with_path(leaf, tree.wide(updates)), updates)

    return stateless(update)


def multiplier(growth: Growth, degree: float) -> float:
    """The factor on the updates of one parameter."""
    move = 1 / growth.inputs if growth.role == "hidden" else 1.0
    gradient = 1 / (growth.inputs if growth.role == "output" else growth.outputs)
    return move / gradient**degree
