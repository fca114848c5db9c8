"""Learning rates for the factors of structured layers (low-rank, Kronecker, Monarch, BTT)."""

import collections
import re
from collections.abc import Mapping

from gradkit._core import check
from gradkit._core.factory import factory
from gradkit._core.types import Transform
from gradkit.parametrization import apply, rules
from gradkit.parametrization.parameter import Parameter, Parametrization


@factory
def transfer_by_structure(
    parametrization: Parametrization, *, dense: Mapping[str, int] | None = None
) -> Transform:
    r"""Multiply each update by muP's learning-rate factor, where layers are products of factors too.

    $$u \cdot \frac{n}{k \, n_i}$$

    for one factor of a layer that is a product of $k$ factors. $n_i$ is the number of inputs of
    this factor. $n$ is the number of inputs of the dense layer that it replaces, at the size where
    the learning rate was tuned. All other parameters take muP's multiplier for Adam.

    Args:
        parametrization: from `infer_parametrization`, with each factor's axes;
            axes that number blocks are neither inputs nor outputs.
        dense: $n$, by regular expression on the paths of factors. Factors with the same
            parent are one layer. Without it, factors are dense layers of their own.

    State: `0` bytes a leaf, `0` once.
    Flops: at most `2*size` a leaf.
    Paper: Qiu and others, "Compute Better Spent: Replacing Dense Layers with Structured
        Matrices", arXiv:2406.06248.
    Departure: none. Low-rank, Kronecker, Monarch, TT and BTT factors differ only in their
        axes; numbers without inputs, such as BTT's gains, take 1, as in the authors' code.
    Limits: for Adam and optimizers like it. Initial factors come from
        `gradkit.rescale_init(..., rule="spectral")`, with the last factor of a block zero. BTT's
        normalization is left to the model.

    >>> factor = lambda i, o: gk.Parameter((i, o), (i, o), "hidden", (0,), (1,))
    >>> p = gk.Parametrization({"up/0": factor(64, 4), "up/1": factor(4, 64)})
    >>> tx, u = gk.transfer_by_structure(p, dense={"up": 64}), {"up/1": jnp.ones((4, 64))}
    >>> print(tx.update(u, tx.init({}))[0]["up/1"][0, 0])  # 64 / 4 / 2
    8.0
    """
    method = "transfer_by_structure"
    for rule in dense or {}:
        check.expression(method, "the key of dense", rule)
    multipliers = rules.follow(method, parametrization, "mup", "adam")
    inputs = {
        path: n
        for path, parameter in parametrization.items()
        for rule, n in (dense or {}).items()
        if re.search(rule, path) and parameter.inputs
    }
    factors = collections.Counter(path.rpartition("/")[0] for path in inputs)

    def factor(path: str, parameter: Parameter) -> float:
        if path not in inputs:
            return float(multipliers[path].learning_rate)
        return inputs[path] / parameter.fan_in / factors[path.rpartition("/")[0]]

    return apply.multiply(
        method, parametrization, {k: factor(k, p) for k, p in parametrization.items()}
    )
