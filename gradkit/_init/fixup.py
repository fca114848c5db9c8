"""Fixup: first parameters of a residual network without normalization."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from gradkit._core import check, numbers, paths
from gradkit._core.factory import factory
from gradkit._core.types import Params


@factory
def init_by_fixup(
    params: Params | jax.Array,
    *,
    branches: Sequence[Sequence[str]],
    outputs: Sequence[str] = (),
    stacked: int = 1,
) -> Params:
    r"""Scale the weights of residual branches so that depth does not change the size of a step.

    $$W \leftarrow L^{-1 / (2m - 2)} W, \qquad W_m \leftarrow 0$$

    for the $m$ weights of each of $L$ branches, the last of which is $W_m$; `outputs` become 0 as
    well. At a learning rate $\eta$ every branch then adds $\eta / L$ to a step of the model, and
    all of them $\eta$, however many they are.

    Args:
        params: parameters from any initializer that suits the activation, such as He's.
        branches: the paths of the weights of each residual branch, in the order in which they are
            applied.
        outputs: paths of what becomes 0: weights and biases of the classification layer.
        stacked: how many branches each one stands for, if the blocks of a model are scanned and
            their weights stacked in one leaf.

    Paper: Zhang, Dauphin and Ma, "Fixup Initialization: Residual Learning Without Normalization",
        arXiv:1901.09321.
    Departure: none for the weights. The paper's scalars, a multiplier of 1 in every branch and a
        bias of 0 before every layer and activation, are the model's own parameters, and stay as
        they are.
    Limits: for branches of no normalization. Skip connections with weights are no branches, and
        keep their size. The authors train the scalars at a tenth of the learning rate, and
        regularize more than with batch normalization.

    >>> params = {"in": jnp.ones(2), "mid": jnp.ones(2), "last": jnp.ones(2), "skip": jnp.ones(2)}
    >>> made = gk.init_by_fixup(params, branches=[["in", "mid", "last"]], stacked=16)
    >>> print(made["in"], made["mid"], made["last"], made["skip"])  # 16^(-1/4)
    [0.5 0.5] [0.5 0.5] [0. 0.] [1. 1.]
    """
    name = "init_by_fixup"
    check.count(name, stacked=stacked)
    known = paths.leaf_paths(params)
    count = len(branches) * stacked
    want = "branches must be one or more"
    check.holds(name, count > 0, want, "none", "Name the weights of each branch.")
    factors: dict[str, float] = {}
    for i, branch in enumerate(branches):
        want = f"branch {i} must be a sequence of paths"
        is_one = isinstance(branch, Sequence) and not isinstance(branch, str)
        check.holds(
            name, is_one and len(branch) > 0, want, repr(branch), "Write a list."
        )
        depth = len(branch)
        inner = count ** (-1 / (2 * depth - 2)) if depth > 1 else 0.0
        scales = [inner] * (depth - 1) + [0.0]
        for path, factor in zip(branch, scales):
            want = f"a weight must be in one branch, once, got {path}, which"
            check.holds(
                name,
                path not in factors,
                f"{want} must be new",
                "it twice",
                "Name it once.",
            )
            factors[path] = factor
    want = "outputs must be a sequence of paths"
    check.holds(
        name, not isinstance(outputs, str), want, repr(outputs), "Write a list."
    )
    factors |= dict.fromkeys(outputs, 0.0)
    for path in factors:
        want = "branches and outputs must be paths of parameters"
        remedy = f"Choose from {sorted(known)}."
        check.holds(name, path in known, want, repr(path), remedy)

    def leaf(path: str, p: jax.Array) -> jax.Array:
        if path not in factors:
            return p
        if factors[path] == 0:
            return jnp.zeros_like(p)
        return (factors[path] * p.astype(numbers.wide_dtype(p))).astype(p.dtype)

    return paths.map_with_path(leaf, params)
